"""Alibaba Cloud: ApsaraDB for Redis and Tair, by the R-kvstore API.

Nothing outside this package reads a field of its answers.
"""
