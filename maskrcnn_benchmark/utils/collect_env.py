"""Import path of the forks, and `python -m maskrcnn_benchmark.utils.collect_env`; see native.collect_env."""

from maskrcnn_benchmark.native.collect_env import collect_env_info

if __name__ == "__main__":
    print(collect_env_info())
