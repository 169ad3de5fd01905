"""Alibaba Cloud: ApsaraDB for Redis and Tair, by the R-kvstore API.

Nothing outside this package knows a field or a header of the vendor.
"""
