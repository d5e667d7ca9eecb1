import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.workloads import sibyl_policy as policy
from potstill.workloads import sibyl_rules as rules
from potstill.workloads import sibyl_simulator as simulator
from potstill.workloads import sibyl_text as text
from potstill.workloads.sibyl_rules import Action, Board, Unit

FEW = settings(max_examples=40, deadline=None)
YOU = Unit("Wren", "ember", "archer", (2, 2), 8, 8, move=2, reach=3, damage=3, ability="trap", recharge=3)
FOE = Unit("Bear", "tide", "giant", (4, 2), 11, 11)
PAL = Unit("Sage", "ember", "healer", (2, 4), 3, 8)


def board(*units: Unit, walls=(), mud=(), cover=(), round=3) -> Board:
    return Board(round, 7, 7, frozenset(walls), frozenset(mud), frozenset(cover), units or (YOU, FOE, PAL))


def wrong(position: Board, *action) -> str:
    return rules.problem(position, "Wren", Action(*action))


def random_position(seed: int) -> tuple[Board, str, str]:
    """A board from the middle of a game of gambles, the unit whose turn it is, and its orders."""
    rng = random.Random(seed)
    position = simulator.draw_board(rng)
    for _ in range(rng.randint(0, 24)):
        name = rng.choice(position.units).name
        position = rules.begin_turn(position, name)
        for action in policy.gamble(position, name, rng)[1:]:
            position = rules.apply(position, name, action)
    name = rng.choice(position.units).name
    return rules.begin_turn(position, name), name, policy.draw_orders(rng)


positions = st.integers(0, 10**6).map(random_position)


# --- moving and seeing


def test_a_move_costs_a_point_a_cell_and_two_into_mud_and_goes_round_walls_and_units():
    position = board(YOU._replace(move=3), FOE._replace(at=(3, 2)), walls=[(2, 1)], mud=[(1, 2)])
    found = rules.destinations(position, position.units[0])
    assert found[(1, 2)] == 2
    assert found[(0, 2)] == 3
    assert found[(4, 3)] == 3
    assert (3, 2) not in found
    assert (2, 1) not in found
    assert (2, 2) not in found
    assert (4, 2) not in found
    assert max(found.values()) == 3


@FEW
@given(positions)
def test_every_destination_is_within_its_points_and_free(drawn):
    position, name, _ = drawn
    unit = position.unit(name)
    taken = {other.at for other in position.units} | position.walls
    for cell, cost in rules.destinations(position, unit).items():
        assert rules.distance(unit.at, cell) <= cost <= unit.move
        assert cell not in taken


def test_a_wall_between_hides_and_a_wall_beside_does_not():
    assert not rules.sees([(3, 2)], (2, 2), (4, 2))
    assert rules.sees([(3, 3)], (2, 2), (4, 2))
    assert not rules.sees([(3, 3)], (2, 2), (4, 4))
    assert rules.sees([(3, 2)], (2, 2), (3, 3))


@FEW
@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=9))
def test_sight_goes_both_ways(walls):
    cells = list(product(range(0, 7, 2), range(7)))
    assert all(rules.sees(walls, a, b) == rules.sees(walls, b, a) for a, b in product(cells, cells))


# --- what is legal


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (("move", None, (3, 2)), ""),
        (("move", None, (4, 2)), "cannot move there"),
        (("move", None, (2, 5)), "cannot move there"),
        (("move", None, (2, 2)), "cannot move there"),
        (("move", None, (-1, 2)), "cannot move there"),
        (("move", None, None), "without a position"),
        (("move", "Bear", (3, 2)), "no target"),
        (("attack", "Bear"), ""),
        (("attack", "Bear", (4, 2)), "no position"),
        (("attack", "Sage"), "no enemy"),
        (("attack", "Wren"), "no enemy"),
        (("attack", "Nobody"), "not on the board"),
        (("attack", None), "not on the board"),
        (("trap", "Bear"), ""),
        (("heal", "Sage"), "has no heal"),
        (("guard",), ""),
        (("guard", "Wren"), "no target"),
        (("wait",), ""),
        (("dance",), "no such action"),
    ],
)
def test_each_action_takes_what_it_takes(action, what):
    found = wrong(board(), *action)
    assert (what in found) if what else not found


def test_reach_sight_cloak_cooldown_and_traps_are_in_the_way():
    assert "out of reach" in wrong(board(YOU, FOE._replace(at=(6, 2))), "attack", "Bear")
    assert "out of reach" in wrong(board(YOU, FOE, walls=[(3, 2)]), "attack", "Bear")
    assert "cloaked" in wrong(board(YOU, FOE._replace(status=(("cloak", 2),))), "attack", "Bear")
    assert "not ready" in wrong(board(YOU._replace(cooldown=1), FOE), "trap", "Bear")
    assert "cannot move" in wrong(board(YOU._replace(status=(("trap", 1),)), FOE), "move", None, (2, 1))


def test_a_healer_heals_who_is_wounded_and_in_reach_oneself_too():
    healer = YOU._replace(ability="heal", reach=2, hp=5)
    assert wrong(board(healer, FOE, PAL), "heal", "Sage") == ""
    assert wrong(board(healer, FOE, PAL), "heal", "Wren") == ""
    assert "no ally" in wrong(board(healer, FOE, PAL), "heal", "Bear")
    assert "not wounded" in wrong(board(healer, FOE, PAL._replace(hp=8)), "heal", "Sage")
    assert "out of reach" in wrong(board(healer, FOE, PAL._replace(at=(2, 6))), "heal", "Sage")


def test_only_waiting_is_done_twice_in_a_turn():
    for kind, *rest in (("attack", "Bear"), ("guard",), ("move", None, (2, 1))):
        assert "a second" in rules.problem(board(), "Wren", Action(kind, *rest), [kind])
    assert not rules.problem(board(), "Wren", Action("wait"), ["wait"])


@FEW
@given(positions)
def test_options_are_exactly_the_legal_actions(drawn):
    position, name, _ = drawn
    names, cells = [None, "Nobody", *(u.name for u in position.units)], [None, *product(range(-1, 8), range(-1, 8))]
    legal = {
        Action(kind, target, cell)
        for kind, target, cell in product((*rules.ACTIONS, "dance"), names, cells)
        if not rules.problem(position, name, Action(kind, target, cell))
    }
    assert legal == set(rules.options(position, name))
    assert Action("wait") in legal


# --- what actions do


def after(position: Board, *action) -> Board:
    assert not wrong(position, *action)
    return rules.apply(position, "Wren", Action(*action))


def test_an_attack_takes_hit_points_less_in_cover_half_when_guarded_and_ends_a_cloak():
    hit = after(board(YOU._replace(status=(("cloak", 2), ("guard", 1))), FOE), "attack", "Bear")
    assert hit.unit("Bear").hp == 8
    assert hit.unit("Wren").status == (("guard", 1),)
    assert after(board(YOU, FOE, cover=[(4, 2)]), "attack", "Bear").unit("Bear").hp == 9
    beside = FOE._replace(at=(3, 2))
    assert after(board(YOU, beside, cover=[(3, 2)]), "attack", "Bear").unit("Bear").hp == 8
    assert after(board(YOU, FOE._replace(status=(("guard", 1),))), "attack", "Bear").unit("Bear").hp == 9
    assert after(board(YOU, FOE._replace(hp=3)), "attack", "Bear").unit("Bear") is None


def test_abilities_set_their_status_heal_and_have_to_recharge():
    trapped = after(board(), "trap", "Bear")
    assert trapped.unit("Bear").status == (("trap", 2),)
    assert trapped.unit("Bear").hp == 11
    assert trapped.unit("Wren").cooldown == 3
    healer = YOU._replace(ability="heal", recharge=2)
    assert after(board(healer, PAL), "heal", "Sage").unit("Sage").hp == 7
    assert after(board(healer, PAL._replace(hp=6)), "heal", "Sage").unit("Sage").hp == 8
    assert after(board(YOU._replace(ability="shield"), PAL), "shield", "Sage").unit("Sage").has("guard")
    assert after(board(YOU._replace(ability="cloak"), PAL), "cloak").unit("Wren").has("cloak")


def test_a_turn_begins_with_fire_and_with_statuses_and_cooldowns_running_down():
    burning = YOU._replace(cooldown=2, status=(("cloak", 2), ("burn", 2), ("guard", 1)))
    begun = rules.begin_turn(board(burning, FOE), "Wren").unit("Wren")
    assert (begun.hp, begun.cooldown, begun.status) == (6, 1, (("cloak", 1), ("burn", 1)))
    assert rules.begin_turn(board(burning._replace(hp=2), FOE), "Wren").unit("Wren").hp == 1


def test_a_trapped_unit_cannot_move_in_its_next_turn_and_can_in_the_one_after():
    position = board(YOU, FOE._replace(move=2))
    position = rules.begin_turn(rules.apply(position, "Wren", Action("trap", "Bear")), "Bear")
    assert rules.destinations(position, position.unit("Bear")) == {}
    position = rules.begin_turn(position, "Bear")
    assert rules.destinations(position, position.unit("Bear"))


def test_the_second_action_is_judged_on_what_the_first_left():
    far = board(YOU._replace(reach=1), FOE)
    step, strike = Action("move", None, (3, 2)), Action("attack", "Bear")
    assert [what for what, _ in rules.play_out(far, "Wren", (step, strike))] == ["", ""]
    assert "out of reach" in next(rules.play_out(far, "Wren", (strike, step)))[0]
    weak = board(YOU, FOE._replace(hp=1))
    *_, (gone, _) = rules.play_out(weak, "Wren", (strike, Action("trap", "Bear")))
    assert "not on the board" in gone


def test_an_illegal_action_does_nothing():
    steps = list(rules.play_out(board(), "Wren", (Action("heal", "Sage"), None, Action("dance"))))
    assert all(what for what, _ in steps)
    assert steps[-1][1] == board()


# --- the text


@FEW
@given(positions)
def test_a_board_survives_its_text(drawn):
    position, name, orders = drawn
    prompt = text.serialise(position, name, orders)
    shown = text.parse(prompt)
    assert shown == text.Shown(text.as_shown(position, name), name, orders)
    assert text.serialise(shown.board, shown.you, shown.orders) == prompt


@FEW
@given(positions)
def test_the_rules_judge_the_text_as_they_judge_the_board(drawn):
    position, name, orders = drawn
    shown = text.parse(text.serialise(position, name, orders))
    assert set(rules.options(shown.board, name)) == set(rules.options(position, name))
    for action in rules.options(position, name):
        seen, real = rules.apply(shown.board, name, action), rules.apply(position, name, action)
        assert {(u.name, u.at, u.hp, u.status) for u in seen.units} == {
            (u.name, u.at, u.hp, u.status) for u in real.units
        }


@FEW
@given(positions)
def test_marks_say_what_the_rules_say(drawn):
    position, name, _ = drawn
    seen = text.view(position, name)
    for enemy in seen.enemies:
        mark, strike = seen.marks[enemy.name], Action("attack", enemy.name)
        assert (mark.reach == "hit") == (not rules.problem(position, name, strike))
        if mark.via:
            step = Action("move", None, mark.via)
            outcome = [what for what, _ in rules.play_out(position, name, (step, strike))]
            assert outcome[0] == ""
            assert (mark.reach == "near") == (outcome[1] == "")
    if seen.back:
        assert not rules.problem(position, name, Action("move", None, seen.back))


def test_the_text_is_as_the_module_shows_it():
    archer = YOU._replace(cooldown=2, status=(("guard", 1),))
    giant, far = FOE._replace(hp=4), FOE._replace(name="Lark", at=(6, 5))
    position = board(archer, PAL, far, giant, walls=[(2, 3), (4, 4)])
    assert text.serialise(position, "Wren", " Hunt the\nweakest. ").split("\n") == [
        "round 3 board 7x7",
        "orders: Hunt the weakest.",
        "you Wren archer (2,2) 8/8 guard 1 move 2 reach 3 hits 3 trap in 2",
        "ally Sage healer (2,4) 3/8 hurt",
        "enemy Bear giant (4,2) 4/11 hurt hit",
        "enemy Lark giant (6,5) 11/11 far (3,3)",
        "wall (2,3)(4,4)",
        "back (0,2)",
    ]


@pytest.mark.parametrize(
    "change",
    [
        ("round 3", "turn 3"),
        ("7x7", "3x7"),
        ("7x7", "99x99"),
        ("orders", "order"),
        ("you Wren", "ally Wren"),
        ("enemy Bear", "you Bear"),
        ("enemy Bear", "enemy Wren"),
        ("(4,2)", "(2,2)"),
        ("11/11", "12/11"),
        ("11/11", "0/11"),
        ("enemy", "monster"),
        ("giant", "big giant"),
        (" hit", " hit me"),
    ],
)
def test_a_text_that_is_no_board_is_not_read_as_one(change):
    prompt = text.serialise(board(), "Wren", "Go.")
    assert text.parse(prompt) is not None
    assert change[0] in prompt
    assert text.parse(prompt.replace(*change, 1)) is None


@FEW
@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(rubbish):
    text.parse(rubbish)
    prompt = text.serialise(board(), "Wren", "Go.").split("\n")
    text.parse("\n".join([*prompt[:3], rubbish, *prompt[3:]]))


def test_standing_orders_may_be_empty():
    assert text.parse(text.serialise(board(), "Wren", "")).orders == ""


# --- the policy


@FEW
@given(positions)
def test_the_policy_is_legal_and_needs_nothing_but_the_text(drawn):
    position, name, orders = drawn
    decision = policy.decide(position, name, orders)
    assert not any(what for what, _ in rules.play_out(position, name, decision[1:]))
    prompt = text.serialise(position, name, orders)
    shown = text.parse(prompt)
    assert policy.decide(shown.board, shown.you, shown.orders) == decision
    for action in decision[1:]:
        assert action.position is None or text.cell_text(action.position) in prompt
        assert action.target is None or action.target in prompt


def decided(position: Board, orders: str = "Strike the nearest, then guard.") -> tuple[Action, Action]:
    return policy.decide(position, "Wren", orders)[1:]


def test_a_specter_cloaks_in_the_first_round_and_when_hurt():
    specter = YOU._replace(ability="cloak", reach=1)
    assert decided(board(specter, FOE, round=1))[0] == Action("cloak")
    assert decided(board(specter, FOE, round=2))[0].type == "move"
    assert decided(board(specter._replace(hp=4), FOE, round=2))[0] == Action("cloak")
    assert decided(board(specter._replace(cooldown=1), FOE, round=1))[0].type == "move"


def test_a_healer_heals_a_hurt_ally_in_reach_goes_to_one_and_else_strikes():
    healer = YOU._replace(ability="heal", reach=2)
    assert decided(board(healer, FOE, PAL)) == (Action("heal", "Sage"), Action("attack", "Bear"))
    away = decided(board(healer, FOE, PAL._replace(at=(2, 6))))
    assert [action.type for action in away] == ["move", "heal"]
    assert decided(board(healer, FOE, PAL._replace(hp=5)))[0] == Action("attack", "Bear")
    assert decided(board(healer._replace(hp=1), FOE))[0] == Action("heal", "Wren")


def test_orders_say_whom_to_strike_and_what_then():
    archer = YOU._replace(cooldown=1)
    lark = FOE._replace(name="Lark", at=(5, 2), hp=2)
    moon = FOE._replace(name="Moon", kind="healer", at=(2, 5))
    position = board(archer, FOE, lark, moon)
    assert decided(position)[0].target == "Bear"
    assert decided(position, "Hunt the weakest, then guard.") == (Action("attack", "Lark"), Action("guard"))
    first, second = decided(position, "Healers first, then fall back.")
    assert first == Action("attack", "Moon")
    assert second.type == "move"


def test_out_of_reach_it_goes_to_the_nearest_and_with_no_way_it_waits():
    away = FOE._replace(at=(6, 6))
    assert [action.type for action in decided(board(YOU._replace(reach=1), away))] == ["move", "guard"]
    trapped = YOU._replace(reach=1, status=(("trap", 1),))
    assert decided(board(trapped, away)) == (Action("guard"), Action("wait"))


def test_no_wording_of_an_order_is_part_of_another_clause():
    clauses = [(key, word) for table in (policy.PREFER, policy.THEN) for key, words in table.items() for word in words]
    assert not [(a, b) for (k, a), (other, b) in product(clauses, clauses) if k != other and a in b]
    for (prefer, words), (then, others) in product(policy.PREFER.items(), policy.THEN.items()):
        for word, other in product(words, others):
            assert policy.read_orders(f"{word}, {other}.") == (prefer, then)
