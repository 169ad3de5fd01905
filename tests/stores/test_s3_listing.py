"""Truncated and invalid listings, from a server whose responses are written here."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from archiver.errors import StoreError, UsageError
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.options import S3Options
from archiver.stores.s3.outages import ONE_TRY, OutageBudget

BUCKET, PREFIX = "offsite", "redis/"
KEYS = tuple(f"{PREFIX}r-x/2026/11/20261124T021500Z-{n}/r-x-{n}.rdb" for n in range(7))
XHTML = (
    '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">'
    "<head><title>Log in</title></head><body><p>Who are you?</p></body></html>"
)
TAG_SOUP = "<!DOCTYPE html><html><body>Log in<br><p>Who are you?</body></html>"

Query = dict[str, str]
# Of a request: its path, and its query; the status, and the body.
Answers = Callable[[str, Query], tuple[int, str]]


@dataclass
class Web:
    """A bucket with the given responses, and the queries that it got."""

    bucket: Bucket
    answers: Answers = lambda *_: (500, "")
    asked: list[Query] = field(default_factory=list)

    @contextmanager
    def __call__(self, answers: Answers) -> Iterator[tuple[Bucket, list[Query]]]:
        self.answers, self.asked = answers, []
        yield self.bucket, self.asked


@pytest.fixture(scope="module")
def store() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            web.asked.append(query)
            # Who asks for ever is to fail, and not to hang.
            status, body = web.answers(parts.path, query) if len(web.asked) < 500 else (501, "")
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if "<html" in body else "application/xml")
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  # as the base class calls them

        def log_message(self, *_: object) -> None:
            """Silence."""

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open")
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        endpoint = f"http://127.0.0.1:{server.server_port}"
        web = Web(Bucket(BUCKET, PREFIX, S3Options(endpoint), OutageBudget(ONE_TRY)))
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        thread.start()
        with web(always(page())):  # a client is made at the first request, which takes a second
            assert listed(web.bucket) == []
        yield web
        server.shutdown()
        thread.join()
        server.server_close()


def page(
    keys: Sequence[str] = (), more: str | None = "false", *, name: str | None = BUCKET,
    prefix: str | None = PREFIX, root: str = "ListBucketResult", **elements: object,
) -> str:  # fmt: skip
    """A page of a listing; each key has one byte."""
    given = {"Name": name, "Prefix": prefix, "IsTruncated": more, **elements}
    inner = "".join(f"<{n}>{value}</{n}>" for n, value in given.items() if value is not None)
    inner += "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0"?>\n<{root} xmlns="{namespace}">{inner}</{root}>'


def listed(bucket: Bucket) -> list[str]:
    return [f"{PREFIX}{key}" for key, *_ in bucket.listing("")]


def always(body: str, status: int = 200) -> Answers:
    return lambda *_: (status, body)


def in_pages(pages: Sequence[str]) -> Answers:
    """The pages in order, then the last one again and again."""
    left = list(pages)
    return lambda *_: (200, left.pop(0) if len(left) > 1 else left[0])


def in_a_circle(pages: Sequence[Sequence[str]]) -> Answers:
    """The pages in a circle, each time with a new token."""
    pages_left, tokens = itertools.cycle(pages), itertools.count()
    return lambda *_: (
        200,
        page(next(pages_left), "true", NextContinuationToken=f"{next(tokens)}"),
    )


def version_1(path: str, query: Query, *, inclusive: bool = False, named: bool = False) -> str:
    """Three keys a page, like a store that knows only version 1."""
    after = query.get("marker", "")
    left = [key for key in KEYS if key > after or (inclusive and key == after)]
    following = {"NextMarker": left[2]} if named and len(left) > 3 else {}
    return page(left[:3], "true" if len(left) > 3 else "false", Marker=after, **following)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_store_that_knows_only_version_1(store: Web, inclusive: bool, named: bool) -> None:
    def answers(path: str, query: Query) -> tuple[int, str]:
        return 200, version_1(path, query, inclusive=inclusive, named=named)

    with store(answers) as (bucket, asked):
        assert listed(bucket) == list(KEYS)
    assert "list-type" in asked[0]
    assert not [query for query in asked[1:] if "list-type" in query]


def test_version_2(store: Web) -> None:
    """With and without a KeyCount, with an empty page in between, and with a huge page."""
    many = [f"{PREFIX}{n:06}" for n in range(3_000)]

    def answers(_: str, query: Query) -> tuple[int, str]:
        pages = {
            "": page(KEYS[:3], "true", KeyCount=3, NextContinuationToken="a+/="),
            "a+/=": page((), "true", KeyCount=0, NextContinuationToken="b"),
            "b": page(KEYS[3:5], "true", NextContinuationToken="c"),
            "c": page([*KEYS[5:], *many], KeyCount=len(KEYS[5:]) + len(many)),
        }
        return 200, pages[query.get("continuation-token", "")]

    with store(answers) as (bucket, _):
        assert listed(bucket) == [*KEYS, *many]


def test_encoded_keys_and_no_namespace(store: Web) -> None:
    encoded = [quote(key, safe="") for key in KEYS]
    body = page(encoded, prefix=quote(PREFIX, safe=""), EncodingType="url")
    body = body.replace(' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', "")
    with store(always(body)) as (bucket, _):
        assert listed(bucket) == list(KEYS)


def test_nothing_there(store: Web) -> None:
    with store(always(page(KeyCount=0))) as (bucket, _):
        assert listed(bucket) == []


NO_LISTINGS: dict[str, tuple[Answers, str]] = {
    "an empty response": (always(""), "an empty response instead of ListBucketResult"),
    "spaces": (always(" \n"), "an empty response"),
    "a proxy's XHTML": (always(XHTML), "received <html> instead of ListBucketResult"),
    "a page that is no XML": (always(TAG_SOUP), "something that is not XML"),
    "JSON": (always("{}"), "something that is not XML"),
    "not found, by a web server": (always(TAG_SOUP, 404), "404: received something that is"),
    "versions": (always(page(root="ListVersionsResult")), "received <ListVersionsResult>"),
    "buckets": (always(page(root="ListAllMyBucketsResult")), "received <ListAllMyBucketsResult>"),
    "nothing but a root": (always("<ListBucketResult/>"), "has no IsTruncated"),
    "rubbish for an end": (always(page(KEYS, "perhaps")), "has IsTruncated 'perhaps'"),
    "another bucket": (always(page(KEYS, name="other")), "Name 'other'"),
    "another prefix": (always(page((), prefix="elsewhere/")), "Prefix 'elsewhere/'"),
    "keys elsewhere": (always(page([*KEYS, "x/1"], prefix=None)), "has 'x/1'"),
    "keys encoded and not said": (always(page([quote(KEYS[0], safe="")])), "has 'redis%2F"),
    "fewer keys than counted": (always(page(KEYS[:1], KeyCount=3)), "KeyCount of 3 and 1 keys"),
    "a key without a size": (
        always(page().replace("</List", f"<Contents><Key>{KEYS[0]}</Key></Contents></List")),
        "has no Size",
    ),
    "a size below nothing": (always(page(KEYS).replace(">1<", ">-1<")), "has -1 Size"),
    "a size that is no number": (always(page(KEYS).replace(">1<", ">1.5<")), "invalid response"),
    "a key without a name": (
        always(page().replace("</List", "<Contents><Size>1</Size></Contents></List")),
        "has no Key",
    ),
    "cut, and counted": (always(page(KEYS, "true", KeyCount=7)), "no continuation token"),
    "cut, and nothing named": (always(page((), "true")), "no continuation token"),
    "the same token": (
        in_pages([page([key], "true", NextContinuationToken="t") for key in KEYS]),
        "the same token came again",
    ),
    "the same page, new tokens": (
        in_pages([page(KEYS, "true", NextContinuationToken=f"{n}") for n in range(9)]),
        "the same page came again",
    ),
    "pages in a circle": (
        in_a_circle([KEYS[:2], KEYS[2:4], KEYS[4:]]),
        "the same page came again",
    ),
    "empty pages for ever": (
        in_pages([page((), "true", NextContinuationToken=f"{n}") for n in range(110)]),
        "the same page came again",
    ),
    "a marker that is not heard": (always(page(KEYS, "true")), "the same page came again"),
    "the first page again, as the last": (
        in_pages([page(KEYS, "true", NextContinuationToken="t"), page(KEYS)]),
        "the same page came again",
    ),
    "two sizes of a key": (
        always(page([KEYS[0], KEYS[0]]).replace(">1<", ">2<", 1)), "twice, with two sizes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_LISTINGS)
def test_what_is_not_a_whole_listing(store: Web, name: str) -> None:
    answers, says = NO_LISTINGS[name]
    with store(answers) as (bucket, _), pytest.raises(StoreError) as caught:
        listed(bucket)
    assert caught.value.exit_code == 6
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"s3://{BUCKET}/redis")
    assert "\n" not in str(caught.value)


ASKED: dict[str, Callable[[Bucket], object]] = {
    "create": lambda bucket: bucket.multipart.create("k"),
    "complete": lambda bucket: bucket.multipart.complete("k", "u", ['"e"']),
    "copy": lambda bucket: bucket.copy("k", "l", 1),
    "parts": lambda bucket: bucket.multipart.parts("k", "u"),
    "part": lambda bucket: bucket.multipart.upload_part("k", "u", 1, bytearray(b"x")),
    "uploads": lambda bucket: list(bucket.multipart.unfinished()),
    "get": lambda bucket: bucket.get("k"),
    "head": lambda bucket: bucket.head("k"),
}


@pytest.mark.parametrize("body", [XHTML, TAG_SOUP], ids=["XHTML", "no XML"])
@pytest.mark.parametrize("name", ASKED)
def test_a_page_answers_no_request(store: Web, name: str, body: str) -> None:
    with store(always(body)) as (bucket, _), pytest.raises(StoreError) as caught:
        ASKED[name](bucket)
    assert "\n" not in str(caught.value)


def test_a_page_that_says_404_does_not_mean_absent(store: Web) -> None:
    with store(always(TAG_SOUP, 404)) as (bucket, _):
        with pytest.raises(StoreError, match="instead of an S3 error"):
            bucket.get("archive.json")
        with pytest.raises(StoreError, match="instead of an S3 error"):
            bucket.multipart.parts("k", "u")
    missing = "<Error><Code>NoSuchKey</Code></Error>"
    with store(always(missing, 404)) as (bucket, _):
        assert bucket.get("archive.json") is None


def cut(root: str, **elements: object) -> str:
    return page((), "true", name=None, prefix=None, root=root, **elements)


@pytest.mark.parametrize("markers", [{}, {"NextPartNumberMarker": 3}])
def test_parts_that_are_cut(store: Web, markers: dict[str, int]) -> None:
    with (
        store(always(cut("ListPartsResult", UploadId="u", **markers))) as (bucket, _),
        pytest.raises(StoreError, match="the listing is truncated"),
    ):
        bucket.multipart.parts("k", "u")


@pytest.mark.parametrize("markers", [{}, {"NextKeyMarker": "k", "NextUploadIdMarker": "u"}])
def test_uploads_that_are_cut(store: Web, markers: dict[str, str]) -> None:
    with (
        store(always(cut("ListMultipartUploadsResult", **markers))) as (bucket, _),
        pytest.raises(StoreError, match="the listing is truncated"),
    ):
        list(bucket.multipart.unfinished())


def test_parts_of_another_upload(store: Web) -> None:
    body = page((), name=None, prefix=None, root="ListPartsResult", UploadId="other")
    with (
        store(always(body)) as (bucket, _),
        pytest.raises(StoreError, match="UploadId 'other'"),
    ):
        bucket.multipart.parts("k", "u")


def test_an_endpoint_that_is_not_a_url() -> None:
    bucket = Bucket(BUCKET, PREFIX, S3Options("nowhere"))
    with pytest.raises(UsageError, match="nowhere"):
        listed(bucket)
