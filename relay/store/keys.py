"""Names of keys: `relay:<mode>:{r0}:…`; the hash tag keeps all of one shard together."""

#: What this version writes; scripts refuse a store of another schema.
SCHEMA = "2"

CLASS_LETTER = {"transactional": "t", "bulk": "b"}
CLASS_OF_LETTER = {letter: name for name, letter in CLASS_LETTER.items()}


def prefix(mode: str) -> str:
    """The prefix of the data keys of a mode."""
    return f"relay:{mode}:{{r0}}:"


def broker_prefix(mode: str) -> str:
    """The prefix of Celery's keys (kombu's `global_keyprefix`)."""
    return f"relay:{mode}:{{mq}}:"


def queue_name(mail_class: str, tenant: str, campaign: str, destination: str) -> str:
    """The store's name of a queue: `<t|b>|<tenant>|<campaign>|<destination>`."""
    return "|".join((CLASS_LETTER[mail_class], tenant, campaign, destination))


def split_queue_name(name: str) -> tuple[str, str, str, str]:
    """Class (the word), tenant, campaign and destination of a queue's name."""
    letter, tenant, campaign, destination = name.split("|", 3)
    return CLASS_OF_LETTER.get(letter, letter), tenant, campaign, destination
