"""The compiled data plane. Imports nothing of gateway outside this folder."""
