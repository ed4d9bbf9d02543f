from orchestrator.measure.nodes import MAX_HELD, NodeBoard

CPU = "cpu_utilization_percentage"


def placed(facts, nodes):
    """A board that knows the node of every rank, and what it gave out meanwhile."""
    board = NodeBoard()
    for rank, node in enumerate(nodes):
        board.place(facts(rank=rank, world_size=len(nodes), node=node))
    return board


def labels(points):
    return [point.key.split("/")[1] for point in points]


def test_machines_are_numbered_by_their_lowest_rank(facts, node_sample):
    board = placed(facts, ["zeta", "alpha", "zeta", "beta"])
    for node, label in (("beta", "node_2"), ("zeta", "node_0"), ("alpha", "node_1")):
        assert labels(board.add(node_sample(node=node))) == [label]


def test_numbers_do_not_hang_on_the_order_in_which_ranks_come(facts, node_sample):
    board = NodeBoard()
    for rank, node in ((2, "c"), (0, "a"), (1, "b")):
        board.place(facts(rank=rank, world_size=3, node=node))
    assert labels(board.add(node_sample(node="c"))) == ["node_2"]


def test_names_sort_as_numbers_do_beyond_ten_machines(facts, node_sample):
    ten = placed(facts, [f"n{number}" for number in range(10)])
    assert labels(ten.add(node_sample(node="n9"))) == ["node_9"]
    eleven = placed(facts, [f"n{number}" for number in range(11)])
    assert labels(eleven.add(node_sample(node="n9"))) == ["node_09"]
    assert labels(eleven.add(node_sample(node="n10"))) == ["node_10"]


def test_samples_wait_until_every_rank_has_said_where_it_is(facts, node_sample):
    board = NodeBoard()
    board.place(facts(rank=1, node="b"))
    assert board.add(node_sample(node="b", number=0)) == []
    assert board.add(node_sample(node="a", number=0)) == []
    assert labels(board.place(facts(rank=0, node="a"))) == ["node_1", "node_0"]


def test_no_more_than_so_many_samples_wait_for_a_rank_that_never_comes(facts, node_sample):
    board = NodeBoard()
    board.place(facts(rank=0, node="a"))
    for number in range(MAX_HELD):
        assert board.add(node_sample(node="a", number=number)) == []
    points = board.add(node_sample(node="a", number=MAX_HELD))
    assert [point.step for point in points] == [*range(MAX_HELD + 1)]


def test_a_monitor_that_starts_again_goes_on_where_it_was(facts, node_sample):
    board = placed(facts, ["a"])
    told = [node_sample(node="a", number=number) for number in (0, 1, 2, 0, 1, 0)]
    steps = [point.step for sample in told for point in board.add(sample)]
    assert steps == [0, 1, 2, 3, 4, 5]


def test_a_machine_that_a_restart_brings_in_gets_the_next_number(facts, node_sample):
    board = placed(facts, ["a", "b"])
    board.place(facts(rank=1, world_size=2, node="c"))
    assert labels(board.add(node_sample(node="c"))) == ["node_2"]
    assert labels(board.add(node_sample(node="b"))) == ["node_1"]
