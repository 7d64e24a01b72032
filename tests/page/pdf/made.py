"""PDF files written by hand: one Helvetica, pages of text at places, /Rotate, a crop box."""

from __future__ import annotations

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


def pdf(path: Path, pages: list[list[Text]], *, rotate: int = 0, crop: tuple[int, ...] | None = None) -> Path:
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for page in pages:
        stream = "\n".join(
            f"BT /F1 {one.size} Tf {one.mode} Tr {one.matrix} {one.x} {one.y} Tm ({one.text}) Tj ET" for one in page
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        box = f"/CropBox [{' '.join(map(str, crop))}]" if crop else ""
        kids.append(len(objects) + 1)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {box} /Rotate {rotate} /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
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
