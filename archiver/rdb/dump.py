"""Reads a dump from its magic to its EOF opcode. The opcodes are those of rdb.h."""

from archiver.rdb.contents import Contents
from archiver.rdb.tally import MOST_AUX, Tally
from archiver.rdb.values import (
    REDIS_VALUES,
    TYPE_MODULE_1,
    TYPE_MODULE_2,
    VALKEY_VALUES,
    skip_module_value,
)
from archiver.rdb.window import EOF_OPCODE, UnsupportedType, Window

_MOST_AUX_BYTES = 256
_VALKEY_SLOT_IMPORT = 243


class DumpReader:
    """Reads the dump in ``window``, with Valkey's types if ``valkey``, else with Redis's."""

    def __init__(self, window: Window, *, valkey: bool) -> None:
        self._window = window
        self._values = VALKEY_VALUES if valkey else REDIS_VALUES
        self._tally = Tally()
        self._expiry: int | None = None  # of the next key
        self._opcodes = {
            TYPE_MODULE_1: self._module_of_a_release_candidate,
            TYPE_MODULE_2: self._module_key,
            244: self._slot_info,
            245: self._function,
            246: self._function_of_a_release_candidate,
            247: self._module_aux,
            248: self._idle,
            249: self._frequency,
            250: self._aux,
            251: self._hint,
            252: self._expires_ms,
            253: self._expires_s,
            254: self._select,
        }
        if valkey:
            self._opcodes[_VALKEY_SLOT_IMPORT] = self._slot_import

    def read(self) -> None:
        """Read up to the EOF opcode.

        Raises:
            ParseError: The dump is damaged, cut short, or has an unsupported type.
        """
        window, values, opcodes, tally = self._window, self._values, self._opcodes, self._tally
        while (code := window.byte()) != EOF_OPCODE:
            skip = values[code]
            if skip is not None:
                tally.selected.keys[code] += 1
                expiring = skip(window)
                if expiring is not None:
                    tally.fields_expire(*expiring)
                if self._expiry is not None:
                    self._expire()
            elif code in opcodes:
                opcodes[code]()
            else:
                raise UnsupportedType(window.offset - 1, f"unknown type or opcode {code}")

    def contents(self, *, is_complete: bool) -> Contents:
        """Return what was counted so far."""
        return self._tally.contents(is_complete=is_complete)

    @property
    def may_have_commands(self) -> bool:
        """Whether the dump says that it is an AOF's preamble (``aof-preamble``, ``aof-base``)."""
        aux = self._tally.aux
        return "1" in {aux.get("aof-preamble"), aux.get("aof-base")}

    def _expire(self) -> None:
        if self._expiry is not None:
            self._tally.expires(self._expiry)
            self._expiry = None

    def _expires_ms(self) -> None:
        self._expiry = self._window.integer(8)

    def _expires_s(self) -> None:
        self._expiry = self._window.integer(4) * 1000

    def _select(self) -> None:
        offset = self._window.offset
        self._tally.select(self._window.length(), offset)

    def _hint(self) -> None:
        self._tally.selected.hint = self._window.length(), self._window.length()

    def _idle(self) -> None:
        self._window.length()

    def _frequency(self) -> None:
        self._window.skip(1)

    def _aux(self) -> None:
        name, value = self._window.string(_MOST_AUX_BYTES), self._window.string(_MOST_AUX_BYTES)
        if name is not None and value is not None and len(self._tally.aux) < MOST_AUX:
            self._tally.aux[name.decode(errors="replace")] = value.decode(errors="replace")

    def _function(self) -> None:
        self._window.strings(1)
        self._tally.functions += 1

    def _function_of_a_release_candidate(self) -> None:
        """Redis 7.0 RC 1 and 2: name, engine, a flag, the description if it is set, the code."""
        self._window.strings(2)
        self._window.strings(2 if self._window.length() else 1)
        self._tally.functions += 1

    def _slot_info(self) -> None:
        """Redis 7.4: the slot, the number of its keys, the number of those with an expiry."""
        for _ in range(3):
            self._window.length()
        self._tally.slots += 1

    def _slot_import(self) -> None:
        """Valkey 9: the name of a migration and its slot ranges."""
        self._window.strings(1)
        for _ in range(2 * self._window.length()):
            self._window.length()

    def _module_key(self) -> None:
        self._window.strings(1)
        offset = self._window.offset
        name, module = self._tally.module(self._window.length(), offset)
        skip_module_value(self._window)
        module.keys += 1
        self._tally.selected.module_keys[name] += 1
        self._expire()

    def _module_aux(self) -> None:
        offset = self._window.offset
        _, module = self._tally.module(self._window.length(), offset)
        # "When" (a kind and a number) has the same layout as the value that follows it.
        skip_module_value(self._window)
        module.aux_records += 1

    def _module_of_a_release_candidate(self) -> None:
        """Redis 4.0 RC: module data without kinds, which nobody else can skip."""
        offset = self._window.offset - 1
        raise UnsupportedType(offset, "only the module that wrote a value of type 6 can read it")
