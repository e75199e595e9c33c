"""Check a zip file of torch.save before torch reads it.

torch.load ignores the checksums (CRC-32) that torch.save writes, so a flipped bit silently changes a number.
`check_zip` compares all of them, at about 1 GB/s.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass

_BLOCK = 1 << 20
_END_RECORD = 22  # size of the end record of a zip file without a comment
_MOST_RECORDS = 500_000  # predictions of a hundred thousand images have three or four each
# torch.save does not compress. Records of a file packed by another program may be larger than the file.
_INFLATION, _FREE_INFLATION = 20, 64 << 20
_CHECKPOINTS = (".pth", ".pt", ".pkl", ".safetensors", ".ckpt", ".bin", ".pyth", ".tar")


class NotACheckpoint(ValueError):
    """Raised for a zip file that is not a file of torch.save."""


@dataclass
class ZipFacts:
    """Content of a zip file of torch.save.

    Attributes:
        pickled: bytes of data.pkl.
        sizes: size of each record in bytes, by its name without the archive's, such as "data/0".
        has_checksums: False if checksums were disabled (torch.serialization.set_crc32_options).
    """

    pickled: bytes
    sizes: dict[str, int]
    has_checksums: bool


def _what_else(names: list[str]) -> str:
    inside = [name for name in names if name.lower().endswith(_CHECKPOINTS) and not name.startswith("__MACOSX/")]
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program, which would be executed; save the state_dict of the model instead"
    if inside and not any(name.endswith("data.pkl") for name in inside):
        return f"a zip archive that contains {inside[0][:200]}: unpack it and give the file inside"
    shown = ", ".join(name[:80] for name in names[:3]) or "nothing"
    return f"a zip archive without a checkpoint (it holds {shown}): unpack it and give the file with the tensors"


def check_zip(path: str | os.PathLike) -> ZipFacts:
    """Compare all records with their checksums, and return the file's content.

    Raises:
        NotACheckpoint: the file is another zip file.
        Exception: the file is damaged; the class depends on the damage.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(max(0, size - _END_RECORD))
        end = file.read()
    if not (len(end) == _END_RECORD and end.startswith(b"PK\x05\x06") and end.endswith(b"\0\0")):
        # Python would read a zip file with a comment, but torch writes none
        raise zipfile.BadZipFile("its end is missing")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if len(records) > _MOST_RECORDS:
            raise ValueError(f"{len(records):,} records")
        names = [record.filename for record in records]
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or any(name.endswith("/constants.pkl") for name in names):
            raise NotACheckpoint(_what_else(names))
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("two records with one name")
        stored = sum(record.file_size for record in records if record.compress_type == zipfile.ZIP_STORED)
        unpacked = sum(record.file_size for record in records)
        if stored > size or unpacked > _INFLATION * size + _FREE_INFLATION:
            raise ValueError(f"its records would take {unpacked:,} bytes, but the file has {size:,}")
        has_checksums = any(record.CRC for record in records)
        if not has_checksums:
            for record in records:
                record.CRC = None  # zipfile then reads the record without comparing
        for record in records:
            with archive.open(record) as content:
                while content.read(_BLOCK):
                    pass
        root = pickles[0].removesuffix("data.pkl")
        sizes = {record.filename.removeprefix(root): record.file_size for record in records}
        return ZipFacts(archive.read(pickles[0]), sizes, has_checksums)
