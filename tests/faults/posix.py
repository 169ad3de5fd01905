"""What POSIX promises of a file system after a power cut, as a small model.

A file's bytes are durable once the file was synced; its name is durable once the folder that holds
the name was synced, and the names of the folders above likewise. Nothing orders what was not
synced: each change of bytes or names may be there after the cut, or not, whatever came before or
after it. A write may be there in part; then the file may have its new size, with zeros in it. A
rename within a folder is there or not. A rename from one folder to another is two changes: the new
name may be there beside the old one, and no name goes before the new one is there.
"""

import itertools
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

# A file's bytes by its path, None for a folder.
Tree: TypeAlias = Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at an offset of a file."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """Another size for a file."""

    size: int


@dataclass(frozen=True, slots=True)
class Rename:
    """Names in one folder, each with its new inode or None; they change together. ``after`` is the
    change without which this one is not there either."""

    names: tuple[tuple[str, int | None], ...]
    after: int | None = None

    @property
    def only_removes(self) -> bool:
        return all(inode is None for _, inode in self.names)


Change: TypeAlias = Write | Resize | Rename


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of a change a cut leaves: of a write, these ranges of its bytes; ``resized`` when
    the file reaches to the write's end all the same."""

    ranges: tuple[tuple[int, int], ...]
    resized: bool


LOST: Final = Kept((), resized=False)
WHOLE: Final = Kept(((0, 2**62),), resized=True)


@dataclass(slots=True)
class _File:
    durable: bytes = b""
    pending: dict[int, Write | Resize] = field(default_factory=dict)


@dataclass(slots=True)
class _Folder:
    durable: dict[str, int] = field(default_factory=dict)
    pending: dict[int, Rename] = field(default_factory=dict)


class FileSystem:
    """A folder and all below it; paths are relative to it, and "" is the folder itself.

    A change has a number. ``sync`` and ``sync_all`` make durable the changes they are given, which
    are those that were complete when the system call began.
    """

    def __init__(self, tree: Tree) -> None:
        self._inodes: Final[dict[int, _File | _Folder]] = {0: _Folder()}
        self._numbers: Final = itertools.count(1)
        self._changes: Final = itertools.count(1)
        self._not_durable: Final[set[int]] = set()
        # Of folders that were synced: what is durable as soon as another change is.
        self._waiting: Final[dict[int, tuple[int, int]]] = {}
        for path in sorted(tree):
            data = tree[path]
            if data is None:
                self.mkdir(path)
            else:
                self.write(self.create(path), 0, data)
        self.sync_all(self.pending())

    # -- what system calls do; each gives the numbers of the changes it made

    def mkdir(self, path: str) -> set[int]:
        return self._name(path, self._new(_Folder()))

    def create(self, path: str) -> int:
        """An empty file; its inode."""
        inode = self._new(_File())
        self._name(path, inode)
        return inode

    def link(self, path: str, other: str) -> set[int]:
        return self._name(other, self._must(path))

    def unlink(self, path: str) -> set[int]:
        """Remove the name of a file, or of an empty folder."""
        self._must(path)
        return self._name(path, None)

    def rename(self, path: str, target: str) -> set[int]:
        inode = self._must(path)
        if self.lookup(target) == inode:
            return set()  # as rename(2) has it for two names of one file
        (folder, name), (onto, new) = self._split(path), self._split(target)
        if folder == onto:
            return self._change(folder, Rename(((name, None), (new, inode))))
        named = self._name(target, inode)
        return named | self._change(folder, Rename(((name, None),), after=max(named)))

    def write(self, inode: int, offset: int, data: bytes) -> set[int]:
        return self._change(inode, Write(offset, data))

    def resize(self, inode: int, size: int) -> set[int]:
        return self._change(inode, Resize(size))

    def sync(self, inode: int, changes: Collection[int]) -> None:
        """Those of the changes that are of this file's bytes, or this folder's names."""
        self._settle(inode, [n for n in self._inodes[inode].pending if n in changes])

    def sync_all(self, changes: Collection[int]) -> None:
        for inode in self._inodes:
            self.sync(inode, changes)

    def _settle(self, inode: int, numbers: Collection[int]) -> None:
        node = self._inodes[inode]
        settled = []
        for number in numbers:
            change = node.pending[number]
            if isinstance(change, Rename) and change.after in self._not_durable:
                self._waiting[number] = change.after, inode
            else:
                settled.append(number)
        if isinstance(node, _File):
            node.durable = _content(node, dict.fromkeys(settled, WHOLE))
        else:
            node.durable = dict(_names(node, set(settled)))
        for number in settled:
            del node.pending[number]
        self._not_durable.difference_update(settled)
        ready = [n for n, (after, _) in self._waiting.items() if after not in self._not_durable]
        for number in ready:
            if number in self._waiting:  # what was settled may have let it go
                self._settle(self._waiting.pop(number)[1], [number])

    # -- what is there

    def lookup(self, path: str) -> int | None:
        """The inode that a path leads to, cut or no cut."""
        inode: int | None = 0
        for name in path.split("/") if path else ():
            folder = self._inodes[inode] if inode is not None else None
            if not isinstance(folder, _Folder):
                return None
            inode = _names(folder, folder.pending).get(name)
        return inode

    def content(self, inode: int) -> bytes:
        """A file's bytes as its readers see them."""
        node = self._file(inode)
        return _content(node, dict.fromkeys(node.pending, WHOLE))

    def durable_content(self, inode: int) -> bytes:
        return self._file(inode).durable

    def visible(self) -> dict[str, bytes | None]:
        """All of it, as it is without a cut."""
        return self.after_cut(dict.fromkeys(self.pending(), WHOLE))

    def pending(self) -> dict[int, Change]:
        """The changes that are not durable, of what has a name, had one, or may have one."""
        found: dict[int, Change] = {}
        seen, todo = {0}, [0]
        while todo:
            node = self._inodes[todo.pop()]
            found |= node.pending
            if isinstance(node, _Folder):
                named = {*node.durable.values(), *_named(node.pending.values())} - seen
                seen |= named
                todo += named
        return dict(sorted(found.items()))

    def after_cut(self, kept: Mapping[int, Kept]) -> dict[str, bytes | None]:
        """The tree when of the pending changes these are kept, and the others lost."""
        tree: dict[str, bytes | None] = {}
        for path, inode in self._paths(kept):
            node = self._inodes[inode]
            tree[path] = _content(node, kept) if isinstance(node, _File) else None
        return tree

    def twins(self, kept: Mapping[int, Kept]) -> frozenset[frozenset[str]]:
        """The paths that are names of one file, for each file with several."""
        names: dict[int, set[str]] = {}
        for path, inode in self._paths(kept):
            names.setdefault(inode, set()).add(path)
        return frozenset(frozenset(paths) for paths in names.values() if len(paths) > 1)

    def _paths(self, kept: Mapping[int, Kept]) -> Iterator[tuple[str, int]]:
        todo = [("", self._folder(0))]
        while todo:
            path, folder = todo.pop()
            possible = {n for n, one in folder.pending.items() if self._may_be(one, n, kept)}
            for name, inode in _names(folder, possible).items():
                yield path + name, inode
                node = self._inodes[inode]
                if isinstance(node, _Folder):
                    todo.append((f"{path}{name}/", node))

    def _may_be(self, change: Rename, number: int, kept: Container[int]) -> bool:
        """Whether a cut that keeps these changes may keep this one."""
        early = change.after in self._not_durable and change.after not in kept
        return number in kept and not early

    def _new(self, node: _File | _Folder) -> int:
        number = next(self._numbers)
        self._inodes[number] = node
        return number

    def _file(self, inode: int) -> _File:
        node = self._inodes[inode]
        if not isinstance(node, _File):
            raise IsADirectoryError(inode)
        return node

    def _folder(self, inode: int) -> _Folder:
        node = self._inodes[inode]
        if not isinstance(node, _Folder):
            raise NotADirectoryError(inode)
        return node

    def _must(self, path: str) -> int:
        inode = self.lookup(path)
        if inode is None:
            raise FileNotFoundError(path)
        return inode

    def _split(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        return self._must(folder), name

    def _name(self, path: str, inode: int | None) -> set[int]:
        folder, name = self._split(path)
        return self._change(folder, Rename(((name, inode),)))

    def _change(self, inode: int, change: Change) -> set[int]:
        number = next(self._changes)
        self._not_durable.add(number)
        if isinstance(change, Rename):
            self._folder(inode).pending[number] = change
        else:
            self._file(inode).pending[number] = change
        return {number}


def _named(changes: Iterable[Rename]) -> Iterator[int]:
    for change in changes:
        yield from (inode for _, inode in change.names if inode is not None)


def _names(folder: _Folder, kept: Container[int]) -> Mapping[str, int]:
    """The names of a folder when these of its changes are kept."""
    if not folder.pending:
        return folder.durable
    names = dict(folder.durable)
    for number, change in folder.pending.items():
        if number in kept:
            for name, inode in change.names:
                if inode is None:
                    names.pop(name, None)
                else:
                    names[name] = inode
    return names


def _content(file: _File, kept: Mapping[int, Kept]) -> bytes:
    """A file's bytes when its changes are kept so far."""
    if not file.pending or file.pending.keys().isdisjoint(kept):
        return file.durable
    data = bytearray(file.durable)
    for number, change in file.pending.items():
        how = kept.get(number, LOST)
        if how == LOST:
            continue
        if isinstance(change, Resize):
            del data[change.size :]
            data.extend(bytes(change.size - len(data)))
            continue
        pieces = [(first, min(last, len(change.data))) for first, last in how.ranges]
        ends = [change.offset + last for _, last in pieces]
        reach = change.offset + len(change.data) if how.resized else max(ends, default=0)
        data.extend(bytes(max(0, reach - len(data))))
        for first, last in pieces:
            data[change.offset + first : change.offset + last] = change.data[first:last]
    return bytes(data)
