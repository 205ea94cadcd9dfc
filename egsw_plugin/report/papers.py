"""What the papers published. Not measured here, and never mixed with what was."""

from typing import Any

GTPO_TABLE: dict[str, Any] = {  # percent
    "source": "arXiv 2508.04349 v6, Table 1",
    "columns": (
        ("AIME24", "Mean@32"), ("AIME24", "Pass@4"), ("AIME24", "Pass@32"),
        ("AIME25", "Mean@32"), ("AIME25", "Pass@4"), ("AIME25", "Pass@32"),
        ("MATH-500", "Mean@32"),
    ),
    "rows": (
        ("Qwen2.5-7B", "GRPO", (28.36, 36.15, 46.01, 15.00, 19.03, 20.00, 78.62)),
        ("Qwen2.5-7B", "DAPO", (21.2, 30.04, 35.51, 13.33, 16.28, 16.67, 78.85)),
        ("Qwen2.5-7B", "GTPO", (34.23, 48.03, 64.89, 16.67, 25.51, 26.67, 80.16)),
        ("Qwen2.5-7B", "GRPO-S", (34.67, 47.18, 64.76, 18.33, 22.76, 23.33, 80.07)),
        ("Qwen2.5-32B", "GRPO", (29.17, 37.18, 46.30, 17.71, 25.95, 28.85, 84.16)),
        ("Qwen2.5-32B", "DAPO", (34.06, 46.64, 59.02, 21.67, 25.76, 26.67, 84.45)),
        ("Qwen2.5-32B", "GTPO", (35.21, 49.41, 68.91, 26.89, 33.49, 36.67, 85.72)),
        ("Qwen2.5-32B", "GRPO-S", (35.52, 51.12, 67.19, 25.11, 29.75, 34.33, 85.79)),
    ),
}  # fmt: skip

EGSW_CURVE: dict[str, Any] = {  # the value drawn, a fraction
    "source": "arXiv 2503.22456, the author's figure, read by eye",
    "methods": ("GRPO", "GRPO+EGSW"),
    "rows": (
        (5, (0.660, 0.662)),
        (15, (0.664, 0.684)),
        (30, (0.670, 0.708)),
        (45, (0.681, 0.732)),
        (58, (0.702, 0.758)),
    ),
}
