"""The columns of an order that its head reads: the task's fields, and the shop's own attributes by name.
Which attributes, categories and scalings there are is fitted before training (`finetune/columns.py`) and is part of
the weights; sizes are part of the config, so a shop without attributes pays for none. All columns are whole numbers,
codes of `streams/tasks/codes.py`: engines round floats to bfloat16, and whole numbers never.

Shape suffixes: B batch, A pairs of a row, N attributes, T those that are texts, G flags of frequent categories,
C all columns but flags, K knots of a column.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engines.signatures import MISSING

CATEGORY = 3
"""What is known of a category: the text that it is, its log-odds above the average, log1p of how often it was seen."""
Inputs = Mapping[str, Tensor]


class Columns(nn.Module):
    """A text's category is looked up at its hash modulo a power of two that is its attribute's own. The table says
    which text an entry belongs to: another text that meets there counts as unseen, not as that one.
    """

    names: Tensor
    start: Tensor
    size: Tensor
    categories: Tensor
    flag_of: Tensor
    flag: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.numbers, self.texts = config.attribute_numbers, config.attribute_texts
        self.register_buffer("names", torch.full((self.numbers + self.texts,), -1, dtype=torch.int32))
        self.register_buffer("start", torch.zeros(self.texts, dtype=torch.int32))
        self.register_buffer("size", torch.ones(self.texts, dtype=torch.int32))
        self.register_buffer("categories", torch.zeros(config.categories, CATEGORY, dtype=torch.int32))
        self.register_buffer("flag_of", torch.zeros(config.flags, dtype=torch.int32))
        self.register_buffer("flag", torch.zeros(config.flags, dtype=torch.int32))

    def forward(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """(B, C): fields, numbers, log-odds and counts of texts; and (B, G): flags, 0 or 1, if there are any; int32.

        Nothing has a width of 0: not every engine can hold it.
        """
        parts, flags = [inputs["fields"]], []
        if self.numbers + self.texts:
            given_BN = self.given(inputs["attribute_ids"], inputs["attributes"])
            if self.numbers:
                parts.append(given_BN[:, : self.numbers])
            if self.texts:
                text_BT = given_BN[:, self.numbers :]
                parts += self.looked_up(text_BT)
                if len(self.flag):
                    flags.append((text_BT[:, self.flag_of.long()] == self.flag).to(torch.int32))
        return torch.cat(parts, dim=-1), *flags

    def given(self, ids_BA: Tensor, codes_BA: Tensor) -> Tensor:
        """(B, N) codes by attribute, MISSING where not given."""
        here_BAN = ids_BA[:, :, None] == self.names
        return torch.where(here_BAN, codes_BA[:, :, None], MISSING).amax(dim=1)

    def looked_up(self, text_BT: Tensor) -> list[Tensor]:
        """Log-odds and count of each text, 0 for one never seen."""
        missing_BT = text_BT == MISSING
        positive_BT = torch.where(missing_BT, 0, text_BT)
        times_BT = torch.div(positive_BT, self.size, rounding_mode="trunc")
        found_BT3 = self.categories[(positive_BT - times_BT * self.size + self.start).long()]
        known_BT = found_BT3[..., 0] == text_BT
        return [torch.where(missing_BT, MISSING, torch.where(known_BT, found_BT3[..., part], 0)) for part in (1, 2)]


def columns_of(config: Any) -> int:
    """How many columns there are, without flags."""
    return int(config.fields + config.attribute_numbers + 2 * config.attribute_texts)


class Scaling(nn.Module):
    """Piecewise linear encoding: how far a number has come through each stretch between its quantiles (Gorishniy et
    al. 2022, On embeddings for numerical features in tabular deep learning, section 3.2). Of codes, so that a stretch
    is linear within a power of two, and logarithmic over several.

    A missing value stands at the column's median, with a mark where the column misses values in training too.
    """

    knots: Tensor
    width: Tensor
    middle: Tensor
    misses: Tensor

    def __init__(self, columns: int, knots: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.zeros(columns, knots, dtype=torch.int32))
        self.register_buffer("width", torch.ones(columns, knots))
        self.register_buffer("middle", torch.zeros(columns, dtype=torch.int32))
        self.register_buffer("misses", torch.zeros(columns))

    def forward(self, columns_BC: Tensor) -> Tensor:
        """(B, C K + C), in [-1, 1]; 0 for a stretch that is not there, so that constants add up to nothing."""
        missing_BC = columns_BC == MISSING
        known_BC = torch.where(missing_BC, self.middle, columns_BC)
        passed_BCK = ((known_BC[..., None] - self.knots).to(self.width.dtype) * self.width).clamp(0.0, 1.0)
        marks_BC = missing_BC.to(self.width.dtype) * self.misses
        centred_BCK = (2 * passed_BCK - 1) * torch.sign(self.width)
        return torch.cat([centred_BCK.flatten(1), marks_BC], dim=-1)
