import torch


def collect_env_info():
    return f"torch {torch.__version__}"
