"""Dumps of any number of keys of all types, made by a real server."""

import asyncio
import time
from pathlib import Path

import redis.asyncio

from archiver.commands.drill import ServerProgram

TYPES = ("string", "list", "set", "zset", "hash", "stream")

# Keys ARGV[1] to ARGV[2]: the six types in turn; every tenth stays for years, every hundredth
# until ARGV[3], in milliseconds since the epoch.
_FILL = """
for i = ARGV[1], ARGV[2] do
  local key, kind = 'key:' .. i, i % 6
  if kind == 0 then redis.call('SET', key, 'value ' .. i)
  elseif kind == 1 then redis.call('RPUSH', key, 'a', 'b', i)
  elseif kind == 2 then redis.call('SADD', key, i, i + 1)
  elseif kind == 3 then redis.call('ZADD', key, i, 'a', 1.5, 'b')
  elseif kind == 4 then redis.call('HSET', key, 'field', i, 'other', 'value')
  else redis.call('XADD', key, '1-1', 'field', i) end
  if i % 100 == 0 then redis.call('PEXPIREAT', key, ARGV[3])
  elseif i % 10 == 0 then redis.call('PEXPIREAT', key, 4102444800000) end
end
"""


async def make_dump(
    program: ServerProgram, directory: Path, keys: int, *, seconds: float = 1.0
) -> bytes:
    """A dump of ``keys`` keys in database 0 and one in database 3; a hundredth of them expires
    ``seconds`` after it was written."""
    directory.mkdir(parents=True, exist_ok=True)
    socket = directory / "s"
    server = await asyncio.create_subprocess_exec(
        str(program.path), "--port", "0", "--unixsocket", str(socket), "--save", "",
        "--dir", str(directory), "--dbfilename", "made.rdb",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while not socket.exists():
                await asyncio.sleep(0.02)
        client = redis.asyncio.Redis(unix_socket_path=str(socket), socket_timeout=60)
        dies = int((time.time() + 60) * 1000)
        for first in range(1, keys + 1, 20_000):
            await client.eval(_FILL, 0, str(first), str(min(first + 19_999, keys)), str(dies))
        dies = int((time.time() + seconds) * 1000)
        async with client.pipeline(transaction=False) as pipe:
            for number in range(100, keys + 1, 100):
                pipe.pexpireat(f"key:{number}", dies)
            await pipe.execute()
        await client.save()
        await client.aclose()
        other = redis.asyncio.Redis(unix_socket_path=str(socket), db=3)
        await other.set("three", "3")
        await other.save()
        await other.aclose()
        # The save was long before they die, or else they are not in it.
        assert time.time() * 1000 < dies
    finally:
        server.kill()
        await server.wait()
    await asyncio.sleep(max(0.0, dies / 1000 + 0.05 - time.time()))
    return (directory / "made.rdb").read_bytes()
