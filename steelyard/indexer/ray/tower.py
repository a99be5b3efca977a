"""How a worker opens a pack's document encoder: a recipe that travels to it."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.encoders.documents.protocol import DocumentEncoder


@dataclass(frozen=True, slots=True)
class PackTower:
    """Opens a pack's document encoder, on whatever machine it is called.

    Attributes:
        pack: folder of the pack, the same on every machine.
        model, adapter: where the document encoder is now, if not where the pack says.
        precision: what the plan says, not ``auto``: machines might decide differently.
        device: of causal models.
    """

    pack: str
    model: str | None
    adapter: str | None
    precision: str
    device: str | None

    def __call__(self) -> DocumentEncoder:
        """Open it."""
        from steelyard.encoders.documents.from_pack import open_document_encoder
        from steelyard.encoders.query.encoder import QueryEncoder

        return open_document_encoder(
            QueryEncoder.load(self.pack),
            model=self.model,
            adapter=self.adapter,
            precision=self.precision,
            device=self.device,
        )
