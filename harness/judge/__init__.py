"""Chat judged by a model: MT-Bench and AlpacaEval, with any engine as the judge, and from existing judgements."""
