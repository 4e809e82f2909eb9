"""An identity provider of OpenID Connect: where to send a browser, and whom it says came back.
The code flow with PKCE; authlib speaks it, joserfc judges the token. Calls wait for the network: use a thread."""

import base64
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from schemas.errors import DataUnavailable, HeadraceError, SettingsError
from streams.access.roles import ROLES
from streams.access.settings import Oidc
from streams.security import reveal

BACK = "/login/sso/back"
TIMEOUT_S = 10.0
DISCOVERED_S = 600.0
LEEWAY_S = 60
#: Of keys in pairs: one who knows only what is public can make none of these.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")


@dataclass(frozen=True, slots=True)
class Journey:
    """What a browser keeps in a cookie between leaving and coming back; it binds the answer to that browser."""

    state: str
    nonce: str
    verifier: str
    back: str

    def cookie(self) -> str:
        values = json.dumps([self.state, self.nonce, self.verifier, self.back])
        return base64.urlsafe_b64encode(values.encode()).decode().rstrip("=")

    @classmethod
    def of(cls, cookie: str) -> "Journey | None":
        """None if it is none of ours."""
        try:
            values = json.loads(base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)))
        except (ValueError, RecursionError):
            return None
        if not (isinstance(values, list) and len(values) == 4 and all(isinstance(value, str) for value in values)):
            return None
        return cls(*values)


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """`why` is for the log; `sentence` is for the person."""

    why: str
    sentence: str = "The login through your organisation did not work. Try again."


class Provider:
    """Safe from threads: what they share is what the provider says of itself, kept for a while."""

    def __init__(self, oidc: Oidc) -> None:
        """SettingsError where the libraries are not installed."""
        try:
            import authlib.integrations.requests_client  # type: ignore[import-untyped]  # it has no types
            import joserfc.jwt  # noqa: F401  whether it is there: it is used where tokens are judged
        except ImportError as error:
            raise SettingsError(
                f"login by OpenID Connect needs {error.name}",
                where="access.oidc",
                todo="install `headrace[sso]`, or leave access.oidc.issuer empty",
            ) from error
        self._oidc, self._session = oidc, authlib.integrations.requests_client.OAuth2Session
        self._said: tuple[float, Mapping[str, Any]] | None = None
        self.address = oidc.public_url.rstrip("/") + BACK

    def begin(self, back: str) -> tuple[str, Journey]:
        """Where to send the browser, and what it has to keep. Raises DataUnavailable, SettingsError."""
        journey = Journey(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(32), back)
        with self._client() as client:
            url, _ = client.create_authorization_url(
                self._about()["authorization_endpoint"],
                state=journey.state,
                code_verifier=journey.verifier,
                nonce=journey.nonce,
            )
        return str(url), journey

    def finish(self, journey: Journey, answer: Mapping[str, str], now_s: int) -> Person | Unknown:
        """Who came back. Raises DataUnavailable, SettingsError."""
        if not compare_digest(answer.get("state", "").encode("utf-8", "replace"), journey.state.encode()):
            return Unknown("an answer to another browser's question")
        if answer.get("iss", self._oidc.issuer) != self._oidc.issuer:
            return Unknown("an answer of another provider")
        if "code" not in answer:
            return Unknown(f"the provider says {answer.get('error', 'nothing')[:100]!r}")
        token = self._token(answer["code"], journey.verifier)
        if not isinstance(token, str):
            return token
        claims = self._claims(token, journey.nonce, now_s)
        return self._person(claims) if not isinstance(claims, Unknown) else claims

    def _client(self) -> Any:
        return self._session(
            self._oidc.client_id,
            reveal(self._oidc.client_secret),
            scope="openid profile email",
            redirect_uri=self.address,
            code_challenge_method="S256",
            default_timeout=TIMEOUT_S,
        )

    def _token(self, code: str, verifier: str) -> str | Unknown:
        from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]  # it has no types
        from requests import RequestException

        endpoint = self._about()["token_endpoint"]
        try:
            with self._client() as client:
                found = client.fetch_token(
                    endpoint, grant_type="authorization_code", code=code, code_verifier=verifier, timeout=TIMEOUT_S
                )
        except AuthlibBaseError as error:
            return Unknown(f"the provider takes the code for {error.error!r}")
        except (RequestException, ValueError) as error:
            raise self._away(endpoint, error) from error
        token = found.get("id_token") if isinstance(found, Mapping) else None
        return token if isinstance(token, str) else Unknown("the provider gave no id_token")

    def _claims(self, token: str, nonce: str, now_s: int) -> dict[str, Any] | Unknown:
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        rules = jwt.JWTClaimsRegistry(
            now_s,
            LEEWAY_S,
            iss={"essential": True, "value": self._oidc.issuer},
            aud={"essential": True, "value": self._oidc.client_id},
            exp={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
            azp={"value": self._oidc.client_id},
        )
        keys = self._fetched(self._about()["jwks_uri"])
        try:
            claims = jwt.decode(token, KeySet.import_key_set(keys), ALGORITHMS).claims  # type: ignore[arg-type]  # JSON
            rules.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            return Unknown(f"the token does not hold: {type(error).__name__}: {error}"[:200])
        return claims

    def _person(self, claims: Mapping[str, Any]) -> Person | Unknown:
        name, groups = claims.get(self._oidc.name_claim), claims.get(self._oidc.group_claim, ())
        if not isinstance(name, str) or (self._oidc.name_claim == "email" and claims.get("email_verified") is not True):
            return Unknown(f"the token has no {self._oidc.name_claim} to go by")
        held = {groups} if isinstance(groups, str) else {group for group in groups if isinstance(group, str)}
        given = (self._oidc.viewers, self._oidc.analysts, self._oidc.operators, self._oidc.admins)
        roles = [role for role, wanted in zip(ROLES, given, strict=True) if held & set(wanted)]
        if not roles:
            return Unknown("no group that has a role", "You are known, and none of your groups may use this console.")
        return Person(name, roles[-1])

    def _about(self) -> Mapping[str, Any]:
        """What the provider says of itself."""
        if self._said is None or time.monotonic() > self._said[0]:
            address = self._oidc.issuer.rstrip("/") + "/.well-known/openid-configuration"
            said = self._fetched(address)
            if said.get("issuer") != self._oidc.issuer:
                raise SettingsError(
                    f"the provider calls itself {said.get('issuer')!r}", where=address, expected=self._oidc.issuer
                )
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                found = urlsplit(str(said.get(name, "")))
                if found.scheme != "https" and found.scheme != urlsplit(self._oidc.issuer).scheme:
                    raise SettingsError(
                        f"the provider has no usable {name}", where=address, expected="an https address"
                    )
            self._said = time.monotonic() + DISCOVERED_S, said
        return self._said[1]

    def _fetched(self, address: str) -> Mapping[str, Any]:
        import requests

        try:
            answer = requests.get(address, timeout=TIMEOUT_S, headers={"Accept": "application/json"})
            answer.raise_for_status()
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise self._away(address, error) from error
        if not isinstance(found, dict):
            raise self._away(address, TypeError("no JSON object"))
        return found

    def _away(self, address: str, error: Exception) -> HeadraceError:
        return DataUnavailable(
            f"the identity provider does not answer as it should: {error}"[:300],
            where=address,
            expected="an OpenID Connect provider",
            todo="look at access.oidc.issuer; logging in by password works meanwhile",
        )
