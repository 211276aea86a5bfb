"""Training objectives and dropout."""

from __future__ import annotations

from typing import Literal

from holotype_spec.schema.values import Rate, Strict

# What a model was trained for, in the order of its training; a descendant lists its parent's first.
Objective = Literal[
    # pretraining
    "causal-lm",  # the next token (Radford et al. 2018, section 3.1)
    "masked-lm",  # the hidden tokens, from both sides (Devlin et al. 2018, section 3.1)
    "next-sentence-prediction",  # does this sentence follow that one? (Devlin et al. 2018, section 3.1)
    "sentence-order-prediction",  # which of two sentences came first? (Lan et al. 2019, section 3.1)
    "replaced-token-detection",  # is this token the original one? (Clark et al. 2020, section 2)
    "translation-replaced-token-detection",  # the same over a sentence and its translation (Chi et al. 2021)
    "translation-lm",  # masked tokens of a sentence beside its translation (Lample & Conneau 2019, section 3.3)
    "permutation-lm",  # tokens in a random order of prediction (Yang et al. 2019, section 2.2)
    "bidirectional-lm",  # the next token, and apart from it the previous one (Peters et al. 2018, section 3.1)
    "prefix-lm",  # the rest of a text, its beginning seen from both sides (Raffel et al. 2019, section 3.2.1)
    "sequence-to-sequence-lm",  # the masked tokens of a second segment, left to right (Dong et al. 2019)
    "span-corruption",  # missing spans, behind sentinels (Raffel et al. 2019, section 3.1.4)
    "denoising",  # the whole text from a noised one (Lewis et al. 2019, section 2.2)
    "masked-seq2seq",  # the missing span, by the decoder alone (Song et al. 2019, section 3.2)
    "blank-infilling",  # missing spans one after another, in a shuffled order (Du et al. 2021, section 2.1)
    "mixture-of-denoisers",  # short, long and suffix spans, each announced (Tay et al. 2022, section 3.1)
    "fill-in-the-middle",  # prefix and suffix first, then what stood between (Bavarian et al. 2022)
    "multi-token-prediction",  # also the tokens after the next (DeepSeek-AI 2024, section 2.2)
    "distillation",  # the outputs of a larger model (Hinton et al. 2015)
    "translation",  # a sentence in another language, from pairs (Vaswani et al. 2017)
    "classification",  # the class of an input
    # fine-tuning
    "supervised-fine-tuning",  # demonstrations of the behaviour wanted (Ouyang et al. 2022, section 3.1)
    "instruction-tuning",  # many tasks, each put as an instruction (Wei et al. 2021)
    "reward-modelling",  # which of two answers did people prefer? (Ouyang et al. 2022, section 3.5)
    "ppo",  # reinforcement learning against a reward model (Schulman et al. 2017)
    "grpo",  # the same without a value network (Shao et al. 2024, section 4.1)
    "rejection-sampling",  # the best of several answers of its own (Touvron et al. 2023, section 3.2.3)
    "dpo",  # preferences without a reward model (Rafailov et al. 2023)
    "prompt-tuning",  # trained vectors in front of the input, all else frozen (Lester et al. 2021)
    "low-rank-adaptation",  # trained low-rank updates, all else frozen (Hu et al. 2021)
]


DropoutSite = Literal[
    "embeddings",
    "attention",
    "residual",
    "attention-output",
    "feed-forward",
    "feed-forward-output",
    "final",
]


class Dropout(Strict):
    """In training, numbers at these sites are zeroed with probability `rate` (Srivastava et al. 2014).

    `embeddings`: what enters a stack, after the norm of the embeddings if there is one. `attention`: the
    weights, after the softmax. `residual`: what each block adds to the residual stream;
    `attention-output` and `feed-forward-output`: what the one kind of block alone adds.
    `feed-forward`: what enters the block's last matrix. `final`: what leaves a stack, after its final norm
    if there is one.
    """

    rate: Rate
    sites: tuple[DropoutSite, ...]

    def at(self, site: DropoutSite) -> float:
        """The rate at one site, 0 where there is no dropout."""
        return self.rate if site in self.sites else 0.0
