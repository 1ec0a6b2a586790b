"""The kind provider: a cluster in containers, where a Docker engine answers.

kind does the work; this builds its command lines and reads what it prints.
"""




async def docker_answers() -> bool:
    return False


class KindCluster:
    kind = "kind"

    def __init__(self, name: str) -> None:
        self.name = name
