"""The API of accounts, tokens and keys, and the base of every noun that belongs to an account."""
