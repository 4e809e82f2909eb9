"""One head per task, by name: its queries to the history, and its outputs. All share the read-out block.
A head is called with the read-out block, the states (B, L, D), the mask (B, 1, 1, L) and the inputs by name, and
returns outputs by name, as the task's signature has them.
"""

from torch import nn

from engines.ctr_head import CtrHead
from engines.fraud_head import FraudHead
from engines.recommendation_head import RecommendationHead

HEADS: dict[str, type[nn.Module]] = {"fraud": FraudHead, "recommendations": RecommendationHead, "ctr": CtrHead}

__all__ = ["HEADS", "CtrHead", "FraudHead", "RecommendationHead"]
