"""Bring every Redis/Tair backup home from Alibaba Cloud, provably intact."""

__version__ = "0.1.0"
