"""Reading a dump from behind its magic to its EOF opcode. Opcodes are those of rdb.h."""

from archiver.rdb.contents import Contents
from archiver.rdb.fault import Unknown
from archiver.rdb.tally import MOST_AUX, Tally
from archiver.rdb.values import (
    REDIS_VALUES,
    TYPE_MODULE_1,
    TYPE_MODULE_2,
    VALKEY_VALUES,
    pass_module_value,
)
from archiver.rdb.window import EOF_OPCODE, Window

_MOST_AUX_BYTES = 256
_VALKEY_SLOT_IMPORT = 243


class DumpReader:
    """Reads a dump in ``window``; the types of Redis or those of ``valkey``."""

    def __init__(self, window: Window, *, valkey: bool) -> None:
        self._window = window
        self._values = VALKEY_VALUES if valkey else REDIS_VALUES
        self._tally = Tally()
        self._expiry: int | None = None  # of the key that comes next
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
        """Go on until the EOF opcode has been read.

        Raises:
            Fault: the reading stopped before.
        """
        window, values, opcodes, tally = self._window, self._values, self._opcodes, self._tally
        while (code := window.byte()) != EOF_OPCODE:
            pass_over = values[code]
            if pass_over is not None:
                tally.selected.keys[code] += 1
                expiring = pass_over(window)
                if expiring is not None:
                    tally.fields_expire(*expiring)
                if self._expiry is not None:
                    self._expire()
            elif code in opcodes:
                opcodes[code]()
            else:
                raise Unknown(window.offset - 1, f"type or opcode {code} is not known")

    def contents(self, *, is_complete: bool) -> Contents:
        """What was counted so far."""
        return self._tally.contents(is_complete=is_complete)

    @property
    def may_have_commands(self) -> bool:
        """The dump says that it begins an AOF: ``aof-preamble``, ``aof-base`` from Redis 7.0 on."""
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
        """Redis 7.0 RC 1 and 2: name, engine, whether a description follows, that, the code."""
        self._window.strings(2)
        self._window.strings(2 if self._window.length() else 1)
        self._tally.functions += 1

    def _slot_info(self) -> None:
        """Redis 7.4: the slot, its keys, its keys with an expiry."""
        for _ in range(3):
            self._window.length()
        self._tally.slots += 1

    def _slot_import(self) -> None:
        """Valkey 9: the name of a migration, and the ranges of its slots."""
        self._window.strings(1)
        for _ in range(2 * self._window.length()):
            self._window.length()

    def _module_key(self) -> None:
        self._window.strings(1)
        offset = self._window.offset
        name, module = self._tally.module(self._window.length(), offset)
        pass_module_value(self._window)
        module.keys += 1
        self._tally.selected.module_keys[name] += 1
        self._expire()

    def _module_aux(self) -> None:
        offset = self._window.offset
        _, module = self._tally.module(self._window.length(), offset)
        # "When", a number with its kind before it, is laid out as the value that follows it is.
        pass_module_value(self._window)
        module.aux_records += 1

    def _module_of_a_release_candidate(self) -> None:
        """Redis 4.0 RC: what the module wrote does not say its kinds."""
        offset = self._window.offset - 1
        raise Unknown(offset, "a value of type 6 can be read by the module alone that wrote it")
