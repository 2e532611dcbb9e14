"""The table of known failures: how each is recognised, what causes it, how it is mended.

Preflight and live errors are explained from this one table; docs/checks.md shows it (a test compares them). A
pattern is searched, without regard to case, in `Type: message` of an error and of those that caused it. The
first row that matches counts: the particular ones stand above the general ones.
"""

from __future__ import annotations

from dataclasses import dataclass

FLASH_ATTENTION, BATCH_MISMATCH, CPU_ONLY_TORCH = "flash-attn ABI", "DeepSpeed batch", "CPU-only torch"
UNREACHABLE, GATED, OFFLINE = "Hub unreachable", "gated model", "Hub switched off"
NOT_ON_HUB, DISK_FULL, TOKENIZER_PACKAGE = "not on the Hub", "disk full", "tokenizer package"
ABOUT_THE_HUB = frozenset({GATED, NOT_ON_HUB, OFFLINE, UNREACHABLE})


@dataclass(frozen=True)
class KnownFailure:
    name: str
    pattern: str
    cause: str
    remedy: str
    source: str
    """Where it was met, or the line of code that raises it."""
    about_memory: bool = False
    """Whether the memory estimate has something to add: what to lower, and by how much."""
    follows: bool = False
    """Whether it is what one rank sees of another rank's failure."""


KNOWN = (
    KnownFailure(
        FLASH_ATTENTION,
        r"flash_attn\S*:? undefined symbol|flash_attn\S*: cannot open shared object|flash_attn.*"
        r"(undefined symbol|GLIBC\S* not found|DLL load failed)",
        "flash-attn's binary was built for another torch, CUDA or C++ ABI than the one that runs",
        "build it against this torch: pip install -r requirements-gpu.txt --no-build-isolation "
        "--force-reinstall --no-deps; or do without: pip uninstall flash-attn",
        "axolotl#3142; Dao-AILab/flash-attention#1832",
    ),
    KnownFailure(
        "binary of another version",
        r"undefined symbol|(GLIBC|GLIBCXX|CXXABI)_\S+' not found",
        "a package's binary was built for another torch, CUDA or C library than the one that runs",
        "install the package that the message names again, in the version that requirements.txt pins",
        "Dao-AILab/flash-attention#723",
    ),
    KnownFailure(
        "GPU memory",
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|"
        r"CUDA error: out of memory",
        "a pass needs more memory than is free on the GPU",
        "see with nvidia-smi whether another process holds memory; then lower, the harmless ones first:",
        "ms-swift#7182; torch.cuda.OutOfMemoryError",
        about_memory=True,
    ),
    KnownFailure(
        "host memory",
        r"DefaultCPUAllocator: (can't|not enough)|MemoryError|bad_alloc|Cannot allocate memory|"
        r"failed to map segment|Unable to mmap",
        "the process may not have as much of this machine's memory as it needs (`free -g`, `ulimit -v`, the "
        "container's limit)",
        "end other processes or raise the limit; then lower, the harmless ones first:",
        "c10/core/impl/alloc_cpu.cpp",
        about_memory=True,
    ),
    KnownFailure(
        "killed from outside",
        r"Signal 9 \(SIGKILL\)",
        "somebody killed the process: without a message it is nearly always the kernel, short of memory "
        "(`dmesg | grep -i oom`)",
        "end other processes or raise the container's limit; then lower, the harmless ones first:",
        "exit code 137: MONAI/monai-physio#126",
        about_memory=True,
    ),
    KnownFailure(
        "process died",
        r"Signal (6 \(SIGABRT|11 \(SIGSEGV|7 \(SIGBUS|4 \(SIGILL)",
        "native code ended the process; its last words stand above. NCCL's watchdog does so after a "
        "time-out, and shared memory that is full (/dev/shm, small in containers) ends in SIGBUS",
        "run again with TORCH_NCCL_DUMP_ON_TIMEOUT=1 and PYTHONFAULTHANDLER=1 for the place; give a "
        "container --shm-size=8g",
        "torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp",
    ),
    KnownFailure(
        "collective time-out",
        r"Watchdog caught collective operation timeout|Timed out waiting \d+ms|ncclTimeout|"
        r"DistBackendError.*time.?out|Timeout waiting for key|wait timeout after",
        "one rank waited for another that did not come: it is much slower (data, disk), did another number "
        "of steps, or has died",
        "look for an earlier message of another rank; give all ranks equally fast GPUs and the same files; "
        "prepare once with one process (--plan, --check), so that caches are warm",
        "LLaMA-Factory#2424; ms-swift#5875",
        follows=True,
    ),
    KnownFailure(
        "port in use",
        r"EADDRINUSE|Address already in use",
        "the port that the processes meet at is taken, often by an earlier run that still goes on",
        "end the earlier run, or choose another MASTER_PORT",
        "torch.distributed.TCPStore",
    ),
    KnownFailure(
        "another rank ended",
        r"gloo.*(Connection closed by peer|Connection reset by peer|Broken pipe|Connection refused)|"
        r"DistNetworkError|ncclRemoteError|Socket closed",
        "another rank ended, and this one lost its connection to it",
        "look for the message of the rank that ended first: it stands above, or in its failure_rankN.log",
        "gloo/transport/tcp/pair.cc",
        follows=True,
    ),
    KnownFailure(
        "NCCL",
        r"NCCL error|ncclSystemError|ncclUnhandledCudaError|ncclInternalError|ncclInvalidUsage",
        "the GPUs cannot reach each other in the way that NCCL chose",
        "run again with NCCL_DEBUG=INFO and read the first WARN; often NCCL_P2P_DISABLE=1, a larger /dev/shm "
        "(--shm-size=8g) or NCCL_SOCKET_IFNAME=<interface> helps",
        "NVIDIA/nccl: troubleshooting",
    ),
    KnownFailure(
        BATCH_MISMATCH,
        r"train_batch_size is not equal|DeepSpeed config values that mismatch|"
        r"DeepSpeed train_batch_size.*vs|micro_batch_per_gpu \* gradient_acc_step",
        "the DeepSpeed JSON states batch sizes of its own, for another number of processes",
        'write "auto" for train_batch_size, train_micro_batch_size_per_gpu and gradient_accumulation_steps',
        "DeepSpeed#3982; deepspeed/runtime/config.py",
    ),
    KnownFailure(
        "template",
        r"chat_template is not set|no template argument was passed|Conversation roles must alternate|"
        r"chat_template '.*' is invalid",
        "the tokenizer has no chat template, or one that does not take these conversations",
        "set SFT_CHAT_TEMPLATE to a bundled name (docs/settings.md) or to a jinja file",
        "open-instruct#1805",
    ),
    KnownFailure(
        GATED,
        r"GatedRepo|you are trying to access a gated repo|Access to \S+ \S+ is restricted|403 Client Error|"
        r"Invalid user token|awaiting a review",
        "the model's or data set's owner lets only accounts in that accepted the terms, and no token of such "
        "an account is set",
        "accept the terms on its page at huggingface.co, then set HF_TOKEN (or run `hf auth login`)",
        "huggingface_hub.errors.GatedRepoError",
    ),
    KnownFailure(
        NOT_ON_HUB,
        r"RepositoryNotFound|RevisionNotFound|Repository Not Found|Revision Not Found|"
        r"not a valid model identifier|DatasetNotFoundError|EntryNotFoundError: 404",
        "there is no such repository, revision or file, or it is private",
        "check the id (of a base SFT_BASE_REVISION too) for typing errors; a private one needs HF_TOKEN",
        "huggingface_hub.errors.RepositoryNotFoundError",
    ),
    KnownFailure(
        OFFLINE,
        r"OfflineModeIsEnabled|offline mode is enabled|outgoing traffic has been disabled",
        "it is not in the local cache, and HF_HUB_OFFLINE or HF_DATASETS_OFFLINE forbids the network",
        "unset these two and run once where there is a network (a gated model needs HF_TOKEN), or give a "
        "local folder",
        "huggingface_hub.errors.OfflineModeIsEnabled",
    ),
    KnownFailure(
        UNREACHABLE,
        r"couldn't connect to 'https://|LocalEntryNotFoundError|Name or service not known|"
        r"Temporary failure in name resolution|Max retries exceeded|ConnectError|ConnectTimeout|"
        r"ConnectionError|ReadTimeout|Network is unreachable|ProxyError|SSLError",
        "the Hugging Face Hub, or a proxy on the way to it, does not answer",
        "check the network and HTTPS_PROXY; or give a local folder; or fill the cache elsewhere and set "
        "HF_HUB_OFFLINE=1",
        "huggingface_hub.errors.LocalEntryNotFoundError",
    ),
    KnownFailure(
        DISK_FULL,
        r"No space left on device|Disk quota exceeded|File too large|database or disk is full|"
        r"PytorchStreamWriter failed writing|inline_container.*unexpected pos|I/O error: No space",
        "the disk is full, or the process may not write a file as large as this (`df -h`, `quota`, "
        "`ulimit -f`)",
        "free some space (*_merged_base folders of other stages can be built again), lower "
        "SFT_SAVE_TOTAL_LIMIT, or choose an SFT_OUT_LORA_DIR on a larger disk",
        "errno ENOSPC, EDQUOT, EFBIG",
    ),
    KnownFailure(
        "not allowed",
        r"PermissionError|Permission denied|Read-only file system|attempt to write a readonly database",
        "a file or folder may not be read or written by this user",
        "change its owner or permissions (the message names it), or choose another folder",
        "errno EACCES, EROFS",
    ),
    KnownFailure(
        TOKENIZER_PACKAGE,
        r"sentencepiece|tiktoken|requires the protobuf|No module named 'google.protobuf'",
        "the tokenizer is a SentencePiece or tiktoken model, read by a package that is not installed",
        "pip install sentencepiece protobuf (of a *.tiktoken file: tiktoken)",
        "transformers/tokenization_utils_tokenizers.py",
    ),
    KnownFailure(
        CPU_ONLY_TORCH,
        r"not compiled with CUDA enabled|torch was built without CUDA|no NVIDIA driver|"
        r"CUDA driver version is insufficient|CUDA-capable device\(s\) is/are busy",
        "this machine has a GPU, and the installed torch is the CPU build or does not fit its driver",
        "pip install --force-reinstall torch==2.13.0 from the index of your CUDA version (pytorch.org, Get "
        "started), or hide the GPU: CUDA_VISIBLE_DEVICES=''",
        "torch/cuda/__init__.py",
    ),
    KnownFailure(
        "GPU not supported",
        r"no kernel image is available|is not compatible with the current PyTorch installation",
        "the installed torch has no code for this generation of GPU",
        "install the torch build for a CUDA version that knows this GPU",
        "torch/cuda/__init__.py",
    ),
    KnownFailure(
        "strides",
        r"strides should be multiple of 16 bytes",
        "grouped products in bf16 need ranks and widths that are multiples of 8",
        "set SFT_LORA_R to a multiple of 8, or SFT_DTYPE=fp32",
        "ATen/native/GroupedMMUtils.h",
    ),
    KnownFailure(
        "number types",
        r"must have the same dtype|to have the same dtype|expected scalar type|"
        r"not implemented for '(Half|BFloat16|Float8\w*)'",
        "two parts of the model compute in different number types, or in one that this device has no code "
        "for",
        "set SFT_DTYPE=fp32 (or bf16 on a GPU that has it) and leave SFT_QUANTIZATION at its default",
        "torch: RuntimeError of a matrix product",
    ),
    KnownFailure(
        "index outside a table",
        r"index out of range in self|device-side assert triggered|indexSelectLargeIndex",
        "a token has no row in the embedding (a tokenizer of another model), or a row is longer than the "
        "positions that the model has",
        "use the tokenizer that belongs to the model; lower SFT_MAX_SEQ_LEN to what `--check` says of it",
        "torch.nn.functional.embedding",
    ),
    KnownFailure(
        "damaged weights",
        r"SafetensorError|HeaderTooLarge|MetadataIncompleteBuffer|InvalidHeaderDeserialization",
        "a weight file is incomplete: its download or copy was cut off",
        "delete the file that the message names and fetch it again",
        "safetensors::SafeTensorError",
    ),
    KnownFailure(
        "no compiler",
        r"Ninja is required|Error building extension|CUDA_HOME environment variable is not set|"
        r"g\+\+.*not found|nvcc.*not found|command '.*(ninja|g\+\+|c\+\+|nvcc).*' returned non-zero",
        "DeepSpeed builds an operator at its first use, and the tools for it are missing or failed",
        "install g++ and ninja (on a GPU the CUDA toolkit, with CUDA_HOME set), or set SFT_ZERO_STAGE=0",
        "torch/utils/cpp_extension.py",
    ),
    KnownFailure(
        "package missing",
        r"ModuleNotFoundError: No module named",
        "a package is not installed in the environment that runs",
        "pip install -r requirements.txt with the Python that runs this command",
        "Python: import",
    ),
)
