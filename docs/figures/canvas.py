"""A page of boxes, words and arrows as SVG: the same bytes on every machine."""

from __future__ import annotations

from xml.sax.saxutils import escape

#: Colours of ranks 0, 1, 2, 3: told apart by colour-blind readers, too (Okabe and Ito, 2008).
RANKS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
INK, GREY, PAPER = "#1f2328", "#8c959f", "#ffffff"


class Canvas:
    """A drawing of ``width`` by ``height`` units with a title that screen readers read."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title = (width, height), title
        self._parts: list[str] = []

    def box(
        self, x: float, y: float, label: object, colour: str, *, filled: bool, width: float = 30
    ) -> None:
        """A box of one sample (or batch): filled if it is done, an outline if it is not."""
        paint = (
            f'fill="{colour}"' if filled else f'fill="{PAPER}" stroke="{colour}" stroke-width="2"'
        )
        self._parts.append(
            f'<rect x="{x + 1:g}" y="{y + 1:g}" width="{width - 2:g}" height="24" rx="3" {paint}/>'
        )
        self.text(x + width / 2, y + 17, label, colour=PAPER if filled else INK, anchor="middle")

    def text(
        self,
        x: float,
        y: float,
        words: object,
        *,
        colour: str = INK,
        anchor: str = "start",
        size: int = 13,
    ) -> None:
        """Words on the base line ``y``."""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" '
            f'text-anchor="{anchor}">{escape(str(words))}</text>'
        )

    def line(
        self,
        x: float,
        y: float,
        to_x: float,
        to_y: float,
        *,
        colour: str = INK,
        dashed: bool = False,
    ) -> None:
        """A straight line."""
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" stroke="{colour}" stroke-width="1.5"{dashes}/>'
        )

    def arrow(self, x: float, y: float, to_y: float, *, colour: str = GREY) -> None:
        """An arrow straight down."""
        self.line(x, y, x, to_y - 5, colour=colour)
        self._parts.append(
            f'<path d="M{x - 4:g} {to_y - 6:g} L{x + 4:g} {to_y - 6:g} L{x:g} {to_y:g} Z" fill="{colour}"/>'
        )

    def svg(self) -> str:
        """The file."""
        width, height = self.size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" '
            'font-family="Helvetica, Arial, sans-serif" role="img">'
        )
        sheet = f'<rect width="{width}" height="{height}" fill="{PAPER}"/>'
        return "\n".join(
            [head, f"<title>{escape(self.title)}</title>", sheet, *self._parts, "</svg>", ""]
        )
