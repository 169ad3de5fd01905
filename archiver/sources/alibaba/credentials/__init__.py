"""Credentials for the vendor's API, found as its SDKs find them.

Source: the vendor's *Manage access credentials* pages for its SDKs, and their code.
"""

from archiver.sources.alibaba.credentials.chain import CredentialChain, default_chain, static_chain

__all__ = ["CredentialChain", "default_chain", "static_chain"]
