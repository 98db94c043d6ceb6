"""What answers and exports are held to by other commands than `python -m bench`, and what these measured last."""

ANSWERS = "what users of encoders ask for"
COLUMNS = ("target", "measured", "met", "command")
ROWS = (
    (
        "wrong graphs, and attention that no rule takes, of two test files: none published",
        "none of those in the files: each is refused with the node and the reason, or served right; "
        "[what is not seen](attention.md#what-can-be-tapped)",
        "yes",
        "`python -m pytest tests/export/test_wrong_graphs.py tests/export/test_tapping_holes.py`",
    ),
    (
        "families of the transformers library and their variants: tapped and equal within 1e-4, or refused with the "
        "true reason",
        "358 tapped, within 5.7e-05; [36 refused](families.md#not-tapped-36)",
        "yes",
        "`python -m bench.families`",
    ),
    (
        "1,000 short texts embedded in calls of 64 by 4 callers: throughput, against one a call by 32, at least 1.3",
        "1.33 (1.31 to 1.35)",
        "yes",
        "`python -m bench.many`",
    ),
    (
        "rerank of 100 documents: against the same ONNX file in a plain loop of batches of 32, at least 0.95",
        "1.81 (1.63 to 2.57)",
        "yes",
        "`python -m bench.rank`",
    ),
    (
        "hidden states, one layer's CLS asked for: throughput against plain, at least 0.95",
        "0.99 (0.98 to 1.01) in calls of 64, 0.96 (0.96 to 0.97) of a text each",
        "yes",
        "`python -m bench.hidden`",
    ),
    (
        "relevance of one label by one run of a gradient, one input a call and eight: time of a call, against plain, "
        "at most 3",
        "Libra 1.26 (1.21 to 1.42) and 1.90 (1.31 to 2.14) of `fashion`, 1.66 (1.59 to 1.78) and 1.78 (1.77 "
        "to 1.83) of `sentiment`; of `fashion` GenAtt, LeGrad and gradient 2.27 (1.82 to 2.61) at most. Integrated "
        "gradients, 64 of them, 18 and 54, are not meant",
        "yes",
        "`python -m bench.relevance --only calls`",
    ),
    (
        "plain requests of a server with relevance graphs: throughput, against one without, at least 0.98",
        "0.985 (0.946 to 1.011) of `fashion`; two servers that are alike: 1.002 (0.958 to 1.021)",
        "yes",
        "`python -m bench.relevance --only plain`",
    ),
    (
        "LeGrad and GenAtt, eight images a call: images a second, against eager PyTorch on the same cores, at least 2",
        "1.89 (1.87 to 1.94) and 1.26 (1.22 to 1.30) of ViT-S/14, 0.73 (0.69 to 0.73) and 0.59 (0.59 to 0.61) of "
        "`fashion`, with photos read and answers sent, which PyTorch need not",
        "no",
        "`python -m bench.relevance --only eager`",
    ),
)
