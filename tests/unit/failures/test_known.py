"""Every row of the table is recognised by the words in which it was met, and by errors that can be made."""

import errno
import os
import re
from collections.abc import Callable

import pytest
import torch

from lib.failures.explain import explain, explain_words
from lib.failures.known import KNOWN

# Row → messages as libraries and logs have them, with the type in front.
SAID = {
    "flash-attn ABI": [
        "ImportError: /venv/lib/python3.11/site-packages/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: "
        "undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcE",
        "ImportError: flash_attn_2_cuda.so: cannot open shared object file: No such file or directory",
    ],
    "binary of another version": [
        "OSError: /venv/lib/libbitsandbytes_cuda124.so: undefined symbol: cget_managed_ptr",
        "ImportError: /lib64/libstdc++.so.6: version `GLIBCXX_3.4.29' not found",
    ],
    "GPU memory": [
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of "
        "79.10 GiB of which 1.20 GiB is free.",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
    "host memory": [
        "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 51200000 bytes. Error code 12 (Cannot allocate memory)",
        "MemoryError: ",
        "RuntimeError: std::bad_alloc",
    ],
    "killed from outside": ["Signal 9 (SIGKILL) received by PID 4711"],
    "process died": [
        "Signal 6 (SIGABRT) received by PID 4711",
        "Signal 11 (SIGSEGV) received by PID 4711",
        "Signal 7 (SIGBUS) received by PID 4711",
    ],
    "collective time-out": [
        "DistBackendError: [Rank 2] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2, "
        "OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=1800000) ran for 1800328 milliseconds",
        "RuntimeError: [gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1000ms for recv operation "
        "to complete",
    ],
    "port in use": ["DistNetworkError: The server socket has failed to listen: EADDRINUSE, port: 29500"],
    "another rank ended": [
        "RuntimeError: [third_party/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:4321",
        "DistNetworkError: Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server "
        "shutdown or crash?",
    ],
    "NCCL": [
        "DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2251, unhandled system error, NCCL 2.21.5"
    ],
    "DeepSpeed batch": [
        "AssertionError: Check batch related parameters. train_batch_size is not equal to "
        "micro_batch_per_gpu * gradient_acc_step * world_size 64 != 2 * 8 * 1",
        "ValueError: Please correct the following DeepSpeed config values that mismatch TrainingArguments "
        "values:\n- ds train_batch_size=64 vs hf train_batch_size (calculated)=16",
        "ValueError: DeepSpeed train_batch_size=64 vs HF calculated=16",
    ],
    "template": [
        "ValueError: Cannot use chat template functions because tokenizer.chat_template is not set and no "
        "template argument was passed!",
        "ValidationError: chat_template 'qwen3_instruct' is invalid enum",
    ],
    "gated model": [
        "GatedRepoError: 403 Client Error. Cannot access gated repo for url https://huggingface.co/google/x",
        "OSError: You are trying to access a gated repo.\nMake sure to have access to it",
    ],
    "not on the Hub": [
        "RepositoryNotFoundError: 401 Client Error. Repository Not Found for url: https://huggingface.co/x. "
        "If you are trying to access a private or gated repo, make sure you are authenticated.",
        "OSError: Qwen/Qwen9 is not a local folder and is not a valid model identifier listed on the Hub",
    ],
    "Hub switched off": [
        "OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/x: offline mode is enabled.",
        "LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified "
        "revision on the local disk and outgoing traffic has been disabled.",
    ],
    "Hub unreachable": [
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them "
        "in the cached files.",
        "ConnectError: [Errno -2] Name or service not known",
    ],
    "disk full": [
        "OSError: [Errno 28] No space left on device",
        "OSError: [Errno 122] Disk quota exceeded: 'out/x'",
        "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 62336 vs 62228",
        "OperationalError: (sqlite3.OperationalError) database or disk is full",
    ],
    "not allowed": ["PermissionError: [Errno 13] Permission denied: '/models/x'"],
    "tokenizer package": [
        "ValueError: You need to have sentencepiece or tiktoken installed to convert a slow tokenizer",
        "ModuleNotFoundError: No module named 'google.protobuf'",
    ],
    "CPU-only torch": [
        "AssertionError: Torch not compiled with CUDA enabled",
        "RuntimeError: Found no NVIDIA driver on your system.",
    ],
    "GPU not supported": [
        "RuntimeError: CUDA error: no kernel image is available for execution on the device"
    ],
    "strides": ["RuntimeError: strides should be multiple of 16 bytes"],
    "number types": [
        "RuntimeError: mat1 and mat2 must have the same dtype, but got Float and BFloat16",
        "RuntimeError: expected scalar type Half but found Float",
    ],
    "index outside a table": [
        "IndexError: index out of range in self",
        "RuntimeError: CUDA error: device-side assert triggered",
    ],
    "damaged weights": [
        "SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered",
        "SafetensorError: Error while deserializing header: HeaderTooLarge",
    ],
    "no compiler": ["RuntimeError: Ninja is required to load C++ extensions"],
    "package missing": ["ModuleNotFoundError: No module named 'tensorboard'"],
}


def test_every_row_has_words_that_it_was_met_in() -> None:
    assert list(SAID) == [failure.name for failure in KNOWN]


@pytest.mark.parametrize(
    ("name", "words"),
    [(name, words) for name, said in SAID.items() for words in said],
    ids=lambda text: text[:30],
)
def test_words_are_recognised_as_their_row(name: str, words: str) -> None:
    found = explain_words(words)
    assert found is not None
    assert found.failure.name == name
    assert found.said in " ".join(words.split()) or found.said.endswith("characters)")


@pytest.mark.parametrize("failure", KNOWN, ids=lambda failure: failure.name)
def test_a_row_says_why_what_to_do_and_where_it_is_from(failure: object) -> None:
    assert failure.cause
    assert failure.remedy
    assert failure.source
    re.compile(failure.pattern)


def grouped_product() -> None:
    """Three columns of bf16: six bytes a row."""
    a, b = torch.ones(4, 3, dtype=torch.bfloat16), torch.ones(2, 3, 3, dtype=torch.bfloat16)
    torch._grouped_mm(a, b, offs=torch.tensor([2, 4], dtype=torch.int32))


def two_number_types() -> None:
    torch.ones(2, 2) @ torch.ones(2, 2, dtype=torch.bfloat16)


def no_such_row() -> None:
    torch.nn.functional.embedding(torch.tensor([9]), torch.ones(4, 2))


def no_gpu() -> None:
    torch.ones(1).to("cuda")


def too_much_memory() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/adapter")


def no_such_package() -> None:
    import no_such_package_anywhere  # noqa: F401


@pytest.mark.parametrize(
    ("provoke", "name"),
    [
        (grouped_product, "strides"),
        (two_number_types, "number types"),
        (no_such_row, "index outside a table"),
        (no_gpu, "CPU-only torch"),
        (too_much_memory, "host memory"),
        (no_space, "disk full"),
        (no_such_package, "package missing"),
    ],
)
def test_the_real_error_is_recognised(provoke: Callable[[], None], name: str) -> None:
    if provoke is no_gpu and torch.cuda.is_available():
        pytest.skip("this machine has a GPU that torch can use")
    with pytest.raises(Exception) as caught:  # noqa: PT011 (the libraries choose the types)
        provoke()
    found = explain(caught.value)
    assert found is not None, caught.value
    assert found.failure.name == name


def test_what_caused_an_error_is_looked_at_first() -> None:
    def save() -> None:
        try:
            no_space()
        except OSError as error:
            raise PermissionError("the checkpoint could not be written") from error

    with pytest.raises(PermissionError) as caught:
        save()
    assert explain(caught.value).failure.name == "disk full"
    caught.value.__cause__.__cause__ = caught.value  # Python allows circles
    assert explain(caught.value).failure.name == "disk full"


@pytest.mark.parametrize(
    "error", [ValueError("labels has the wrong length"), AssertionError(), KeyError("loss")]
)
def test_others_are_not_explained(error: Exception) -> None:
    assert explain(error) is None


def test_the_remedy_comes_first_and_memory_has_numbers() -> None:
    found = explain_words("OutOfMemoryError: CUDA out of memory.")
    shown = found.lines("stage 2 failed", ["SFT_LORA_R=8: about 1 GB instead of 2 GB"])
    assert shown[0] == "stage 2 failed: GPU memory"
    assert shown[1].startswith("    remedy:")
    assert shown[2].strip() == "SFT_LORA_R=8: about 1 GB instead of 2 GB"
    assert "SFT_PER_DEVICE_TRAIN_BS" in "".join(found.lines("stage 2 failed"))


def test_no_control_characters_reach_the_screen() -> None:
    found = explain_words("OSError: No space left on device\x1b[2J")
    assert "\x1b" not in "".join(found.lines("stage 1 failed"))
