"""Webhooks: fraud alerts posted to the shop's own endpoints, signed, each at least once, by a service of its own.

alerts.fraud -> Source (a group for each endpoint) -> Schedule -> Sender -> the endpoint
                    ^- Ledger, commit <- what was delivered, or is on webhooks.failed
"""
