"""Who changed what: topic audit.log, one partition, kept for ever, each entry chained to the one before by its hash.

chain         an entry, its hash, and what is wrong with a chain: no Kafka
log           append by one process at a time; read
pseudonyms    names to what the log calls them, and back for who has the key
accounts      changes of accounts into the log
"""
