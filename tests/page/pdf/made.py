"""PDF files written by hand: one Helvetica, pages of text at places, /Rotate, a crop box."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Text:
    """A text at a place of the unrotated page, origin at the bottom left; `mode` 3 is invisible."""

    text: str
    x: float = 100
    y: float = 700
    size: float = 20
    mode: int = 0
    matrix: str = "1 0 0 1"


@dataclass(frozen=True)
class Filled:
    """A field of a form on the first page: `Tx` a text, `Ch` a choice, `Btn` a box to tick; `flags` 2 hides it."""

    value: str
    rect: tuple[int, int, int, int] = (300, 690, 500, 720)
    kind: str = "Tx"
    flags: int = 4
    rows: bool = False


PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
"""What a password is filled up with."""
IDENTITY = b"0123456789abcdef"


def rc4(key: bytes, data: bytes) -> bytes:
    state, j, made = list(range(256)), 0, bytearray()
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        made.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(made)


def locked(path: Path, password: str) -> Path:
    """An empty page behind a password: the standard handler, 40 bits."""
    padded = (password.encode() + PAD)[:32]
    owner = rc4(hashlib.md5(padded).digest()[:5], padded)
    key = hashlib.md5(padded + owner + (-4 & 0xFFFFFFFF).to_bytes(4, "little") + IDENTITY).digest()[:5]
    lock = f"/Filter /Standard /V 1 /R 2 /P -4 /O <{owner.hex()}> /U <{rc4(key, PAD).hex()}>"
    plain = pdf(path, [[]]).read_bytes()
    more = f"/Encrypt << {lock} >> /ID [<{IDENTITY.hex()}> <{IDENTITY.hex()}>]"
    path.write_bytes(plain.replace(b"/Root 1 0 R", f"/Root 1 0 R {more}".encode()))
    return path


def pdf(
    path: Path,
    pages: list[list[Text]],
    *,
    rotate: int = 0,
    crop: tuple[int, ...] | None = None,
    media: tuple[int, ...] = (612, 792),
    fields: tuple[Filled, ...] = (),
    covered: bool = False,
) -> Path:
    """`media`: width and height, or left, bottom, right, top. `covered`: a grey picture lies over all of each page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for page in pages:
        stream = "\n".join(
            f"BT /F1 {one.size} Tf {one.mode} Tr {one.matrix} {one.x} {one.y} Tm ({one.text}) Tj ET" for one in page
        )
        if covered:
            picture = "BI /W 1 /H 1 /CS /G /BPC 8 ID \xc8 EI"
            stream = f"q {media[-2]} 0 0 {media[-1]} 0 0 cm {picture} Q\n{stream}"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        box = f"/CropBox [{' '.join(map(str, crop))}]" if crop else ""
        kids.append(len(objects) + 1)
        edges = media if len(media) == 4 else (0, 0, *media)
        place = f"/MediaBox [{' '.join(map(str, edges))}] {box} /Rotate {rotate}"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R {place} /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> ANNOTS>>"
        )
    first = len(objects) + 1
    names = " ".join(f"{first + n} 0 R" for n in range(len(fields)))
    if fields:
        objects[0] = f"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [{names}] /DA (/F1 12 Tf 0 g) >> >>"
    for number, field in enumerate(fields):
        rect, more = " ".join(map(str, field.rect)), f"/V ({field.value})"
        if field.kind == "Btn":
            more = f"/V /{field.value} /AS /{field.value}"
        if field.rows:
            more += " /Ff 4096"
        objects.append(
            f"<< /Type /Annot /Subtype /Widget /FT /{field.kind} /T (field{number}) {more} /Rect [{rect}] /F {field.flags} "
            "/DA (/F1 12 Tf 0 g) /AP << /N << /Yes << >> /Off << >> >> >> >>"
        )
    kept = iter([f"/Annots [{names}] "])
    objects = [one.replace("ANNOTS", next(kept, "")) if "ANNOTS" in one else one for one in objects]
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(f'{n} 0 R' for n in kids)}] /Count {len(kids)} >>"
    made, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(made))
        made += f"{number} 0 obj\n{one}\nendobj\n".encode("latin-1")
    start = len(made)
    made += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    made += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    made += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF".encode()
    path.write_bytes(made)
    return path
