"""Names of files that file managers, editors, file systems and S3 tools create anywhere. Pure.

Such a file is no backup, hides none, and returns when it is removed. No store lists them, so all
commands agree to ignore them. No instance, set or file of an archive has such a name.
"""

import re
from typing import Final

_NAMES: Final = frozenset(
    (
        # Windows
        "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        # macOS, on network drives
        "network trash folder", "temporary items", "icon\r",
        # network storage by Synology and QNAP
        "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
        # file systems: at the root of each, wherever that is mounted
        "lost+found",
    )
)  # fmt: skip
# `x~` and `#x#` of editors; the old version of a document that `sed -i.bak` leaves; the marker that
# Hadoop's tools put beside a folder in a bucket; the dot files of macOS and Linux desktops.
_PATTERN: Final = re.compile(
    r".+~|#.+#|(.+\.json|SHA256SUMS)\.(bak|orig)|.+_\$folder\$"
    r"|\._.+|\.(DS_Store|AppleDouble|Spotlight-V100|Trashes|fseventsd|directory|Trash-\d+|snapshot)",
    re.IGNORECASE,
)
# How the names end that it matches, unless they begin with a dot.
_ENDS: Final = ("~", "#", "$", ".bak", ".orig")


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is ignored, wherever it is."""
    lower = name.lower()
    # The pattern goes through all of a name before it fails; most names can be told by their end.
    may_match = lower.startswith(".") or lower.endswith(_ENDS)
    return lower in _NAMES or (may_match and _PATTERN.fullmatch(name) is not None)


def is_listed(name: str) -> bool:
    """Whether a store lists a file or folder of this name: it is not ignored, and does not begin
    with a dot."""
    return not (name.startswith(".") or is_ignored(name))
