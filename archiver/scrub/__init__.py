"""Reading back what an archive holds, and mending it (*scrubbing*, as ZFS and Ceph call it).

``verify`` compares every object with all that was written about it; ``repair`` fetches what is
wrong from another archive or from the source. Neither removes anything.
"""
