"""The console: where people work with alerts, and see and steer what the system does.
Server-rendered pages over a store of its own that is rebuilt from the topics; no other service depends on it.
"""
