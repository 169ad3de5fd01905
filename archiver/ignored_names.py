"""What file managers, editors, file systems and S3 tools leave among other people's files. Pure.

None of it is a backup or hides one, and it comes back when it is removed: no store shows it, so all
commands agree that it is not there. No instance, set or file of an archive has such a name.
"""

import re
from typing import Final

_NAMES: Final = frozenset(
    (
        # Windows
        "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        # macOS, on disks of others
        "network trash folder", "temporary items", "icon\r",
        # network storage by Synology and QNAP
        "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
        # file systems: at the root of each, wherever it is mounted
        "lost+found",
    )
)  # fmt: skip
# `x~` and `#x#` of editors; a document's old version, as `sed -i.bak` leaves it; the marker that
# Hadoop's tools put beside a folder in a bucket; what macOS and Linux desktops begin with a dot.
_FORMS: Final = re.compile(
    r".+~|#.+#|(.+\.json|SHA256SUMS)\.(bak|orig)|.+_\$folder\$"
    r"|\._.+|\.(DS_Store|AppleDouble|Spotlight-V100|Trashes|fseventsd|directory|Trash-\d+|snapshot)",
    re.IGNORECASE,
)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is nobody's, and nothing to look at."""
    return name.lower() in _NAMES or _FORMS.fullmatch(name) is not None


def is_shown(name: str) -> bool:
    """Whether a listing shows what has this name: neither litter, nor what begins with a dot."""
    return not (name.startswith(".") or is_litter(name))
