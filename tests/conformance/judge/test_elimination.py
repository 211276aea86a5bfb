"""Which changes explain what was seen, whatever is judged."""

from dataclasses import dataclass

from holotype_conformance.judge.elimination import Explanation, agreeing, surviving


@dataclass(frozen=True)
class Scene:
    """Something whose answer is a number; a change is what is added to what is right, None for no change."""

    answer: float
    right: float = 0.0
    near: float = 0.1

    @property
    def is_right(self) -> bool:
        return abs(self.answer - self.right) <= self.near

    def residual(self, change: float | None) -> float:
        return float("inf") if change is None else abs(self.answer - self.right - change)


def everywhere(change: float | None) -> list[str]:
    return []


def changes(found: list[Explanation[float | None]]) -> list[float | None]:
    return [each.change for each in found]


def test_what_agrees_with_every_scene_is_left_with_its_largest_residual() -> None:
    scenes = [Scene(1.02), Scene(2.0, right=1.0)]
    (found,) = agreeing([1.0, 1.3, -1.0, None], scenes, everywhere)
    assert found.change == 1.0
    assert abs(found.residual - 0.02) < 1e-12
    assert found.where == []


def test_later_scenes_are_not_looked_at_once_nothing_is_left() -> None:
    def scenes():  # type: ignore[no-untyped-def]
        yield Scene(1.0)
        raise AssertionError("it was looked at")

    assert list(agreeing([5.0, None], scenes(), everywhere)) == []


def test_nothing_explains_what_is_right_in_every_scene() -> None:
    assert list(agreeing([0.0], [Scene(0.05), Scene(0.0)], everywhere)) == []
    assert changes(list(agreeing([0.05], [Scene(0.05), Scene(0.12)], everywhere))) == [0.05]


def test_of_several_those_count_that_need_the_fewest_limits_and_none_that_no_words_limit() -> None:
    limits = {1.0: ["here"], 1.01: ["here", "and there"], 0.99: None, 1.02: ["there"]}
    found = list(agreeing(limits, [Scene(1.0)], limits.get))
    assert [(each.change, each.where) for each in found] == [(1.0, ["here"]), (1.02, ["there"])]


def test_a_change_survives_a_scene_by_its_rounding() -> None:
    assert surviving({1.0: 0.0, 1.2: 0.0, 1.05: 0.07}, Scene(1.0)) == {1.0: 0.0, 1.05: 0.07}
