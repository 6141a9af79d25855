"""Parts of a reading as JSON has them."""


def plain(value):
    """A value as JSON has it."""
    if hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if isinstance(value, dict):
        return {
            " ".join(sorted(key)) if isinstance(key, frozenset) else key: plain(each) for key, each in value.items()
        }
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return sorted(value) if isinstance(value, frozenset | set) else value
