"""Group laws of SE(3), covariance against sampling, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ar.frames import FrameGraph
from ar.pose import Poses, exp_rotation, interpolate, log_rotation, matrix_of, quaternion_of
from esplanade.core.errors import Conflict, InvalidInput, NotFound

coordinates = arrays(np.float64, (3,), elements=st.floats(-500, 500))
turns = arrays(np.float64, (3,), elements=st.floats(-6, 6))


@st.composite
def poses(draw: st.DrawFn) -> Poses:
    return Poses.of(draw(coordinates), exp_rotation(draw(turns)))


def same(a: Poses, b: Poses) -> None:
    metres, radians = a.distance(b)
    assert metres.max() < 1e-9 * 2000
    assert radians.max() < 1e-7


@given(poses(), poses(), poses())
def test_composition_is_associative(a: Poses, b: Poses, c: Poses) -> None:
    same((a @ b) @ c, a @ (b @ c))


@given(poses())
def test_identity_and_inverse_from_both_sides(a: Poses) -> None:
    one = Poses.identity()
    same(a @ one, a)
    same(one @ a, a)
    same(a @ a.inverse(), one)
    same(a.inverse() @ a, one)


@given(poses(), poses(), coordinates)
def test_composition_acts_on_points_as_one_after_the_other_and_as_matrices(a: Poses, b: Poses, p: np.ndarray) -> None:
    both = (a @ b).apply(p)
    np.testing.assert_allclose(both, a.apply(b.apply(p)), atol=1e-8)
    np.testing.assert_allclose(both[0], ((a @ b).matrix()[0] @ [*p, 1.0])[:3], atol=1e-8)
    np.testing.assert_allclose((a @ b).matrix(), a.matrix() @ b.matrix(), atol=1e-8)


@given(poses())
def test_log_and_exp_and_matrices_go_back(a: Poses) -> None:
    same(Poses.exp(a.log()), a)
    same(Poses.from_matrix(a.matrix()), a)


@given(turns)
def test_rotation_vectors_are_the_shorter_way_and_matrices_are_rotations(v: np.ndarray) -> None:
    q = exp_rotation(v)
    assert np.linalg.norm(log_rotation(q)) <= np.pi + 1e-12
    m = matrix_of(q)
    np.testing.assert_allclose(m @ m.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(m) == pytest.approx(1)
    np.testing.assert_allclose(np.abs(quaternion_of(m) @ q), 1.0, atol=1e-12)


@given(poses(), poses(), st.floats(0, 1))
def test_interpolation_meets_its_ends_and_turns_evenly(a: Poses, b: Poses, f: float) -> None:
    pair = Poses.of(np.vstack([a.translation_m, b.translation_m]), np.vstack([a.rotation, b.rotation]))
    mid = interpolate([1.0, 3.0], pair, [1.0, 1 + 2 * f, 3.0])
    same(mid[0], a)
    same(mid[2], b)
    whole = a.distance(b)[1][0]
    assert a.distance(mid[1])[1][0] == pytest.approx(f * whole, abs=1e-6)


def test_covariance_of_a_composition_and_an_inverse_agrees_with_sampling() -> None:
    rng = np.random.default_rng(3)
    n = 40_000
    spread = np.diag([0.02, 0.03, 0.01, 0.01, 0.02, 0.015]) ** 2
    a = Poses.of([1.0, 2.0, 0.5], exp_rotation([0.3, -0.2, 1.0]), spread)
    b = Poses.of([4.0, -1.0, 0.2], exp_rotation([-0.1, 0.4, 0.2]), spread / 4)
    both, back = a @ b, a.inverse()
    noisy_a = a @ Poses.exp(rng.multivariate_normal(np.zeros(6), spread, n))
    noisy_b = b @ Poses.exp(rng.multivariate_normal(np.zeros(6), spread / 4, n))
    mean = Poses(both.translation_m, both.rotation)
    seen = np.cov((mean.inverse() @ Poses((noisy_a @ noisy_b).translation_m, (noisy_a @ noisy_b).rotation)).log().T)
    assert both.covariance is not None
    assert back.covariance is not None
    np.testing.assert_allclose(seen, both.covariance[0], atol=0.03 * np.abs(both.covariance).max())
    seen = np.cov((back.inverse_mean() @ noisy_a.inverse_mean()).log().T)
    np.testing.assert_allclose(seen, back.covariance[0], atol=0.03 * np.abs(back.covariance).max())


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (np.diag([1.0, 1.0, -1.0, 1.0]), "left-handed"),
        (np.diag([2.0, 2.0, 2.0, 1.0]), "scale"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "NaN"),
        (np.eye(4) + np.eye(4)[:, ::-1] * 0.5, "last row"),
        (np.eye(3), "(n, 4, 4)"),
    ],
)
def test_matrices_that_are_no_pose_are_refused(matrix: np.ndarray, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Poses.from_matrix(matrix)
    assert says in str(caught.value)


@pytest.mark.parametrize("q", [[0, 0, 0, 0], [0, 0, 0, 1.1], [np.nan, 0, 0, 1], [0, 0, 1], [1, 1, 1, 1]])
def test_quaternions_that_are_not_unit_are_refused(q: list[float]) -> None:
    with pytest.raises(InvalidInput, match="quaternion"):
        Poses.of([0, 0, 0], q)


@pytest.mark.parametrize("t", [[np.nan, 0, 0], [np.inf, 0, 0], [1e9, 0, 0]])
def test_translations_out_of_range_are_refused(t: list[float]) -> None:
    with pytest.raises(InvalidInput, match="translation"):
        Poses.of(t, [0, 0, 0, 1])


def test_a_covariance_with_a_negative_eigenvalue_is_refused() -> None:
    with pytest.raises(InvalidInput, match="negative eigenvalue"):
        Poses.of([0, 0, 0], [0, 0, 0, 1], -np.eye(6))


def test_poses_are_not_extrapolated_nor_carried_over_a_gap() -> None:
    pair = Poses.identity(2)
    with pytest.raises(InvalidInput, match="not extrapolated"):
        interpolate([0, 1], pair, 1.5)
    with pytest.raises(InvalidInput, match="gap"):
        interpolate([0, 1], pair, 0.5, max_gap_s=0.5)


@settings(max_examples=30)
@given(st.lists(poses(), min_size=3, max_size=8), st.randoms(use_true_random=False))
def test_a_frame_graph_answers_as_composition_along_the_tree(chain: list[Poses], chance: object) -> None:
    graph, world = FrameGraph(), [Poses.identity()]
    for i, pose in enumerate(chain, 1):
        parent = chance.randrange(i)  # type: ignore[attr-defined]
        graph.set(f"f{parent}", f"f{i}", pose)
        world.append(world[parent] @ pose)
    for a in range(len(world)):
        for b in range(len(world)):
            same(graph.pose(f"f{a}", f"f{b}"), world[a].inverse() @ world[b])


def test_a_frame_graph_refuses_cycles_and_tells_what_is_not_joined() -> None:
    graph, one = FrameGraph(), Poses.identity()
    graph.set("venue", "anchor", one)
    graph.set("anchor", "device", one)
    with pytest.raises(Conflict, match="another way"):
        graph.set("venue", "device", one)
    graph.set("other", "lost", one)
    with pytest.raises(NotFound, match="not joined"):
        graph.pose("venue", "lost")
    with pytest.raises(NotFound, match="not in this graph"):
        graph.pose("venue", "nowhere")
    graph.remove("anchor")
    graph.set("venue", "device", one)
    assert len(graph.pose("venue", "device")) == 1
