"""Decision policies: what is approved, reviewed and blocked, by rules, lists and money, from a calibrated probability.
A policy is data (a TOML document) that is checked whole when it is loaded; the worker decides by the live one.
"""
