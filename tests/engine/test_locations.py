"""Paths and URLs: what they name, and how they are read."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trtdet.engine.locations import is_url, join, open_filesystem, read_image
from trtdet.errors import BackendError, ImageError


@pytest.mark.parametrize(
    ("folder", "name", "joined"),
    [
        ("/data", "a.png", "/data/a.png"),
        ("/data", "/other/a.png", "/other/a.png"),
        ("", "a.png", "a.png"),
        ("/data", "s3://bucket/a b.png", "s3://bucket/a b.png"),
        ("s3://bucket/in", "a.png", "s3://bucket/in/a.png"),
        ("s3://bucket/in/", "x/a.png", "s3://bucket/in/x/a.png"),
        ("s3://bucket/in", "/local/a.png", "/local/a.png"),
        ("/data", "file:///a%20b.png", "/a b.png"),
        ("s3://bucket/in", "file:///a%20b.png", "/a b.png"),
        ("file:///data", "a.png", "/data/a.png"),
    ],
)
def test_names_are_relative_to_a_folder_of_either_kind(folder, name, joined):
    assert join(folder, name) == joined


def test_an_url_is_told_from_a_path():
    assert [is_url(name) for name in ("gs://a/b", "file:///a", "a/b", "C:/a")] == [
        True, False, False, False,
    ]  # fmt: skip


def test_a_local_file_is_read_as_the_pipeline_reads_it(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"image")
    assert read_image((tmp_path / "a b.png").as_uri()) == b"image"
    with pytest.raises(ImageError, match="this is a folder"):
        read_image(str(tmp_path))


def test_what_fsspec_reads_is_read():
    pytest.importorskip("pyarrow", reason="URLs need pyarrow (trtdet[ray])")
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe("/images/a b%20c.png", b"image")
    memory.pipe("/images/empty.png", b"")
    assert read_image("memory://images/a b%20c.png") == b"image"
    for name, reason in (("none", "file not found"), ("empty", "the file is empty")):
        with pytest.raises(ImageError, match=reason):
            read_image(f"memory://images/{name}.png")
    with pytest.raises(ImageError, match="over the limit of 3"):
        read_image("memory://images/a b%20c.png", max_bytes=3)
    with pytest.raises(BackendError, match="nothing installed here reads nowhere://"):
        open_filesystem("nowhere://a/b")


class ObjectStore(BaseHTTPRequestHandler):
    """What S3 answers for one object: its size, and ranges of its bytes."""

    data = b"an image"

    def do_HEAD(self) -> None:
        found = self.path == "/bucket/in/a.png"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(self.data) if found else 0))
        self.end_headers()

    def do_GET(self) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = self.data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_arguments: object) -> None:
        pass


def test_an_object_store_is_read(monkeypatch):
    fs = pytest.importorskip("pyarrow.fs", reason="URLs need pyarrow (trtdet[ray])")
    if not hasattr(fs, "S3FileSystem"):
        pytest.skip("this pyarrow was built without S3")
    with ThreadingHTTPServer(("127.0.0.1", 0), ObjectStore) as store:
        threading.Thread(target=store.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        assert read_image(join("s3://bucket/in", "a.png")) == b"an image"
        with pytest.raises(ImageError, match="file not found"):
            read_image("s3://bucket/in/b.png")
        store.shutdown()
