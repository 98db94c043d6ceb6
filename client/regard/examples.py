"""Examples in the help of each command."""

_COMMANDS = {
    "models": ("regard models", "regard --server gpu1:8001 models --json"),
    "load": ("regard load minilm",),
    "unload": ("regard unload minilm",),
    "classify": (
        "regard classify cat.jpg --model vit-s14",
        "regard classify 'A fine film.' --model sentiment",
        "regard classify 'Not good.' --why negative -o why.png",
        "regard classify photos/ --labels cat,dog -o labels.jsonl",
    ),
    "embed": (
        "regard embed 'A man is eating.' 'A man eats.'",
        "regard embed --lines reviews.txt -o vectors.npz",
        "regard embed reviews.csv --column text -o vectors.parquet --resume",
    ),
    "rank": ("regard rank 'Who ate?' documents.txt --lines --top-k 10",),
    "align": ("regard align photo.jpg 'a cat on a sofa' -o words.png",),
    "compare": ("regard compare 'A man is eating.' 'Someone eats.' --pairs -o pairs.png",),
    "attend": (
        "regard attend cat.jpg",
        "regard attend 'The cat sat.' --layer 3 --head 5",
        "regard attend photos/ --reduce mean -o sheet.pdf",
        "regard attend cat.jpg --layer 7 --head 3 --open",
    ),
    "study": (
        "regard study photos/ --model vit-s14 -o study",
        "regard study --lines reviews.txt --model minilm -o study --resume",
        "regard study new-photos/ --model vit-s14 -o new --against study",
    ),
    "generate": ("regard generate hello --model g2p",),
    "explore": ("regard explore", "regard explore --listen 127.0.0.1:9000 --no-open"),
}
EXAMPLES = {name: "Examples:\n\n" + "\n\n".join(commands) for name, commands in _COMMANDS.items()}
