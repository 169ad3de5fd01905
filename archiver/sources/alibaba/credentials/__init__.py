"""Who we are to the vendor: the default chain of its own SDKs, with the names people have set.

Source: the vendor's *Manage access credentials* pages for its SDKs, and their code.
"""

from archiver.sources.alibaba.credentials.chain import CredentialChain, default_chain, static_chain

__all__ = ["CredentialChain", "default_chain", "static_chain"]
