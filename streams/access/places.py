"""The folder of accounts and keys: for this user of the machine alone, and so is each file in it.
A file that others could read is closed to them before it is used."""

import os
from pathlib import Path

from schemas.errors import SettingsError
from streams.config import Settings

ACCOUNTS, PSEUDONYM_KEY, AUDIT_HEAD = "accounts.db", "pseudonyms.key", "audit.head"


def access_folder(settings: Settings) -> Path:
    """Makes it where it is not there. SettingsError if that cannot be done."""
    folder = (settings.access.folder or settings.data_dir / "access").expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode
    except OSError as error:
        raise _refused(folder, error) from error
    if mode & 0o022:
        raise SettingsError(
            "others may write where accounts and keys are kept",
            where=str(folder),
            expected="a folder that this user alone may write",
            todo=f"run `chmod go-w {folder}`",
        )
    return folder


def private_file(path: Path) -> Path:
    """Makes the file where it is not there, empty and 0600; SettingsError if it cannot be that."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(handle).st_mode & 0o077:
                os.fchmod(handle, 0o600)
        finally:
            os.close(handle)
    except OSError as error:
        raise _refused(path, error) from error
    return path


def write_private(path: Path, text: str, *, new: bool = False) -> None:
    """Whole or not at all. `new`: leaves a file that is there as it is. SettingsError if it cannot be written."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            if new:
                os.link(beside, path)
                beside.unlink()
            else:
                beside.replace(path)
        except FileExistsError:
            beside.unlink()
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"accounts and keys cannot be kept there: {error.strerror}",
        where=str(path),
        expected="a folder that this user may write",
        todo="set HEADRACE_ACCESS__FOLDER",
    )
