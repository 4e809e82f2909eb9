"""Who may do what: roles, accounts in one SQLite file, and the gate of the web pages. Nothing is open by default.

roles                         four roles, a table from action to least role, and who is asking
places, database              the private folder, and the file in it: WAL, one transaction a change
users, passwords              names, roles, argon2 hashes
sessions, tokens, codes       the three ways to be somebody: a cookie, a bearer token, a link that works once
random_secrets                what these three are: random, given out once, kept as digests
attempts                      how long the next guess has to wait
accounts                      all of these together
changes                       each change is kept beside what it changed until the audit log has it
web                           `protect`: puts these before all routes of an aiohttp application
gate, headers                 who asks, whether they may, whether they meant it; what every answer says
login, pages                  login, logout, login by a link; plain pages
sso, oidc                     login through an identity provider, where the settings name one
settings                      the section `access`
"""
