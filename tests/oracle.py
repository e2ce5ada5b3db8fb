"""The naive oracle: an epoch as a list, ranks as people who are dealt cards. It shares no code and no formula with the library."""

from __future__ import annotations


class Epoch:
    """One epoch over ``order`` (a list of ids), played out by hand."""

    def __init__(self, order: list[int]) -> None:
        self.order = list(order)
        self.left = list(order)
        self.committed: list[int] = []

    def deal(self, world_size: int, tail: str) -> list[list[int]]:
        """Each rank's ids, one card at a time, with the tail treated as asked."""
        hands: list[list[int]] = [[] for _ in range(world_size)]
        for place, card in enumerate(self.left):
            hands[place % world_size].append(card)
        longest = max(len(hand) for hand in hands)
        shortest = min(len(hand) for hand in hands)
        if tail == "drop":
            hands = [hand[:shortest] for hand in hands]
        if tail == "pad":
            again = 0
            for hand in hands:
                if len(hand) < longest:
                    hand.append(self.left[again % len(self.left)])
                    again += 1
        return hands

    def real(self, world_size: int) -> list[list[int]]:
        """Each rank's ids without padding."""
        return self.deal(world_size, "exact")

    def commit(self, world_size: int, counts: list[int]) -> None:
        """Rank r has trained on the first ``counts[r]`` of its hand; padding is not progress."""
        hands = self.real(world_size)
        taken = [card for hand, count in zip(hands, counts, strict=True) for card in hand[:count]]
        self.committed += taken
        self.left = [card for card in self.left if card not in set(taken)]
