import torch
from helpers import distributed_cases, processes

from maskrcnn_benchmark.utils import comm


def test_without_a_process_group_everything_is_local():
    assert (comm.get_world_size(), comm.get_rank(), comm.is_main_process()) == (1, 0, True)
    comm.synchronize()
    data = {"z": torch.tensor(1.0), "a": torch.tensor(2.0)}
    assert comm.all_gather(data) == [data]
    assert comm.gather(data) == [data]
    assert comm.reduce_dict(data) is data
    assert comm.all_reduce_sum(data["a"]) is data["a"]


def test_communication_of_two_processes():
    first, second = processes.run(2, distributed_cases.talk)
    for result in (first, second):
        assert result["world_size"] == 2
        assert result["all_gather"] == [{"rank": 0, "text": "x"}, {"rank": 1, "text": "xx"}]
        assert result["all_reduce_sum"].tolist() == [3]
        assert result["mean"] == [("a", 5), ("b", 1.5)]
        assert result["sum"] == {"a": 10, "b": 3}
        assert result["running_mean"].tolist() == [1, 1]
    assert (first["main"], second["main"]) == (True, False)
    assert (first["gather"], second["gather"]) == ([0, 1], None)
    assert second["unchanged"].tolist() == [2]
