"""The sentence that says why a run failed, whichever process said it: Python's, C++'s, CUDA's, the kernel's, a shell's.

A wrong sentence sends a user to the wrong place for a day. The logs are in the forms that Ray, torch, vLLM, hydra,
glibc, bash and Slurm write, cut short. Maps to egsw_plugin/report/cause.py. Not exercised: logs of real runs
(verl_runs/test_faults.py).
"""

import pytest

from egsw_plugin.report.cause import find_cause

DIED = """\
Error executing job with overrides: ['algorithm.adv_estimator=egsw']
Traceback (most recent call last):
  File "/v/site-packages/verl/trainer/main_ppo.py", line 93, in run_ppo
    ray.get(runner.run.remote(config))
ray.exceptions.RayTaskError(ActorDiedError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=7945, ip=192.0.2.2)
  File "/v/site-packages/verl/single_controller/ray/base.py", line 56, in __call__
    output = ray.get(output)
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
\tclass_name: create_colocated_worker_cls.<locals>.WorkerDict
\tactor_id: 5a61
\tpid: 812
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. There are some potential root causes. (1) The process \
is killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called.

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""
RAYLET = """\
(raylet) A worker died or was killed while executing a task by an unexpected system error. To troubleshoot the \
problem, check the logs for the dead worker. Lease ID: 03 Worker ID: 79 Node ID: f5 Worker IP: 192.0.2.2\
 Worker PID: 812 Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error.
"""
DRIVER = """\
Traceback (most recent call last):
  File "/v/site-packages/verl/trainer/main_ppo.py", line 93, in run_ppo
    ray.get(runner.run.remote(config))
"""


def of(source, text):
    """The lines as a process of this name prints them."""
    return "".join(f"({source}) {line}\n" for line in text.strip("\n").split("\n"))


SEGFAULT = """
*** SIGSEGV received at time=1764000000 on cpu 3 ***
PC: @     0x7fd011069d5e  (unknown)  ncclGroupEndInternal()
    @     0x7ffff7f99420  (unknown)  (unknown)
[2025-11-24 12:00:01,123 E 812 999] logging.cc:497: *** SIGSEGV received at time=1764000000 on cpu 3 ***
Fatal Python error: Segmentation fault

Thread 0x00007f2a30 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait

Extension modules: numpy._core._multiarray_umath, torch._C
"""
FAULT = """
Fatal Python error: Bus error

Current thread 0x00007f2a30 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait
  File "/v/site-packages/torch/storage.py", line 400 in _share_filename_cpu_
  File "/home/me/reward.py", line 12 in score
"""
TERMINATED = """
terminate called after throwing an instance of 'c10::AcceleratorError'
  what():  CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
Exception raised from c10_cuda_check_implementation at /pytorch/c10/cuda/CUDAException.cpp:43 (most recent call first):
frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7fa84b4b9446 in /v/torch/lib/libc10.so)

*** SIGABRT received at time=1764000000 on cpu 3 ***
Fatal Python error: Aborted
"""
UNHANDLED = (
    "[2025-02-03 10:34:03,841 E 812 6881] logging.cc:101: Unhandled exception: N3c1016DistBackendErrorE. what(): [PG "
    "ID 0 Rank 5] Process group watchdog thread terminated with exception: [Rank 5] Watchdog caught collective "
    "operation timeout: WorkNCCL(SeqNum=14, OpType=_ALLGATHER_BASE, Timeout(ms)=1800000) ran for 1800036 milliseconds."
)
REMOTE = """
Traceback (most recent call last):
  File "/v/site-packages/torch/distributed/distributed_c10d.py", line 2806, in all_reduce
    work = group.allreduce([tensor], opts)
torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3384, remote process exited or there was a \
network error, NCCL version 2.27.5
ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.
"""
GLOO = """
Traceback (most recent call last):
  File "/v/site-packages/torch/distributed/distributed_c10d.py", line 2806, in all_reduce
    work = group.allreduce([tensor], opts)
RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:544] Connection closed by peer [192.0.2.2]:28541
"""
CUDA_MEMORY = """
Traceback (most recent call last):
  File "/v/site-packages/verl/workers/engine/fsdp/transformer_impl.py", line 700, in forward_step
    output = self.module(**inputs)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 18.55 GiB. GPU 0 has a total capacity of 79.11 GiB of \
which 6.20 GiB is free.
"""
VLLM = "".join(
    f"(vLLMHttpServer pid=900) (EngineCore_DP0 pid=950) ERROR 11-24 12:00:00 [core.py:718] {line}\n"
    for line in (
        "EngineCore failed to start.",
        "Traceback (most recent call last):",
        '  File "/v/site-packages/vllm/v1/engine/core.py", line 709, in run_engine_core',
        "    engine_core = EngineCoreProc(*args, **kwargs)",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.",
    )
) + of(
    "vLLMHttpServer pid=900",
    """
Traceback (most recent call last):
  File "/v/site-packages/vllm/v1/engine/utils.py", line 650, in wait_for_engine_startup
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}
""",
)
ENGINE_DRIVER = DRIVER + (
    "ray.exceptions.RayTaskError(RuntimeError): ray::vLLMHttpServer.launch_server() (pid=900, ip=192.0.2.2)\n"
    '  File "/v/site-packages/vllm/v1/engine/utils.py", line 650, in wait_for_engine_startup\n'
    "    raise RuntimeError(\n"
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'E': 1}\n"
)
MEMORY_PRESSURE = """\
(raylet) [2025-08-25 19:21:02,241 E 111 111] (raylet) node_manager.cc:3064: 2 Workers (tasks / actors) killed due to \
memory pressure (OOM), 0 Workers crashed due to other reasons at node (ID: b8aad7, IP: 192.0.2.2) over the last time \
period. To see more information about the Workers killed on this node, use `ray logs raylet.out -ip 192.0.2.2`
(raylet)
(raylet) Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/
"""
RAY_MEMORY = (
    DRIVER
    + """\
ray.exceptions.RayTaskError(OutOfMemoryError): ray::TaskRunnerV1.run() (pid=7945, ip=192.0.2.2)
  File "/v/site-packages/verl/single_controller/ray/base.py", line 56, in __call__
    output = ray.get(output)
ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.
Memory on the node (IP: 192.0.2.2, ID: 8c5a) where the task (actor ID: 41, name=WorkerDict, pid=812, memory \
used=12.18GB) was running was 119.91GB / 125.28GB (0.957), which exceeds the memory usage threshold of 0.95.
"""
)
DISK = """
Traceback (most recent call last):
  File "/v/site-packages/torch/serialization.py", line 967, in save
    _save(obj, opened_zipfile)
OSError: [Errno 28] No space left on device

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/v/site-packages/torch/serialization.py", line 797, in __exit__
    self.file_like.write_end_of_file()
RuntimeError: [enforce fail at inline_container.cc:664] . unexpected pos 704 vs 598
"""
RAY_DISK = (
    DRIVER + "ray.exceptions.OutOfDiskError: Local disk is full\nThe object cannot be created because it is full.\n"
)
ASSERTED = """
/pytorch/aten/src/ATen/native/cuda/Indexing.cu:1422: indexSelectSmallIndex: block: [0,0,0], thread: [0,0,0] Assertion \
`srcIndex < srcSelectDimSize` failed.
Traceback (most recent call last):
  File "/v/site-packages/torch/nn/functional.py", line 2546, in embedding
    return torch.embedding(weight, input)
torch.AcceleratorError: CUDA error: device-side assert triggered
"""
CHILD_FAILED = """\
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
"""
CAUGHT = of(
    "vLLMHttpServer pid=900",
    """
Traceback (most recent call last):
  File "/v/site-packages/vllm/platforms/cuda.py", line 12, in probe
    pynvml.nvmlInit()
NVMLError_LibraryNotFound: NVML Shared Library Not Found
""",
)
FINAL = (
    DRIVER
    + """\
ray.exceptions.RayTaskError(ValueError): ray::TaskRunnerV1.run() (pid=7945, ip=192.0.2.2)
  File "/v/site-packages/verl/trainer/ppo/v1/trainer_base.py", line 300, in _create_dataloader
    raise ValueError(message)
ValueError: the training set is empty
"""
)
SHELL = "run_tiny.sh: line 44: 21834 {}                  python -m verl.trainer.main_ppo algorithm.adv_estimator=egsw\n"
HYDRA_END = "\nSet the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.\n"
NOT_FOUND = (
    "In 'ppo_trainer': Could not find 'method/egws'\n\nAvailable options in 'method':\n\tegsw\n\tgtpo\n" + HYDRA_END
)

RAISED = 'Traceback (most recent call last):\n  File "/home/me/a.py", line 3, in f\n    g()\n{}\n'
AND = "\nThe above exception was the direct cause of the following exception:\n\n"
LOGGED = 'Call stack:\n  File "/home/me/a.py", line 3, in f\n    log.info(x)\nMessage: x\nArguments: ()\n'
CAUGHT_SCORE = of("RewardLoopWorker pid=6636", RAISED.format("ValueError: could not convert string to float: 'abc'"))
STEPS = of("TaskRunnerV1 pid=7945", "step:1 - actor/entropy:0.5\nstep:2 - actor/entropy:0.5")
TORCHRUN = """\
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 4321)
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
EMPTY = ("traceback", "ValueError: the training set is empty")
X = ("traceback", "ValueError: x")
MEMORY = ("traceback", "torch.OutOfMemoryError")
HANG = """\
/r/launch.sh: line 156: 28360 Killed                  "$@"
run_tiny.sh: ended: for STALL_LIMIT=7200 seconds nothing was added to metrics.jsonl, validation/ or checkpoints/ in /o,\
 as where a weight sync has failed.
"""

LOGS = {  # the log, the kind of its cause, and what the first line or two must say
    "segfault of an actor": (of("WorkerDict pid=812", SEGFAULT) + RAYLET + DIED, "native", "*** SIGSEGV received"),
    "segfault reported late": (RAYLET + of("WorkerDict pid=812", SEGFAULT) + DIED, "native", "*** SIGSEGV received"),
    "where it was": (of("WorkerDict pid=812", SEGFAULT) + DIED, "native", "ncclGroupEndInternal()"),
    "which process": (of("WorkerDict pid=812", SEGFAULT) + DIED, "native", "The process was WorkerDict pid=812."),
    "faulthandler": (of("RewardLoopWorker pid=8", FAULT) + DIED, "native", "/home/me/reward.py:12 in score"),
    "terminate": (of("WorkerDict pid=812", TERMINATED) + DIED, "native", "CUDA error: an illegal memory access"),
    "unhandled in Ray": (of("WorkerDict pid=812", UNHANDLED) + DIED, "native", "Watchdog caught collective operation"),
    "heap": (of("WorkerDict pid=812", "free(): invalid pointer") + DIED, "native", "free(): invalid pointer"),
    "bad_alloc": (
        of("A pid=1", "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc")
        + DIED,
        "native",
        "std::bad_alloc",
    ),
    "LLVM": (of("A pid=1", "LLVM ERROR: Symbol not found: __svml_cosf8_ha") + DIED, "native", "LLVM ERROR: Symbol"),
    "C assertion": (
        of("A pid=1", "python: ../src/pool.c:123: take: Assertion `n > 0' failed.") + DIED,
        "native",
        "Assertion `n > 0' failed",
    ),
    "Ray's check": (
        of("raylet", "[2025-02-03 10:34:03,841 C 81 68] (raylet) worker_pool.cc:12:  Check failed: n == 1 bad")
        + DRIVER
        + "ray.exceptions.LocalRayletDiedError: The task's local raylet died. Check raylet.out.\n",
        "native",
        "Check failed: n == 1 bad",
    ),
    "threads": (
        "OpenBLAS blas_thread_init: pthread_create failed for thread 12 of 64: Resource temporarily unavailable\n"
        + DIED,
        "native",
        "pthread_create failed",
    ),
    "CUDA memory, peers follow": (
        of("WorkerDict pid=813", REMOTE) + of("WorkerDict pid=812", CUDA_MEMORY) + DIED,
        "traceback",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 18.55 GiB",
    ),
    "gloo's peers follow": (
        of("WorkerDict pid=813", GLOO) + of("WorkerDict pid=812", CUDA_MEMORY) + DIED,
        "traceback",
        "torch.OutOfMemoryError",
    ),
    "a peer alone": (of("WorkerDict pid=813", REMOTE), "traceback", "torch.distributed.DistBackendError: NCCL error"),
    "timeout behind an error": (
        of("WorkerDict pid=812", CUDA_MEMORY) + of("WorkerDict pid=813", UNHANDLED) + DIED,
        "traceback",
        "torch.OutOfMemoryError",
    ),
    "vLLM's engine": (VLLM + ENGINE_DRIVER, "traceback", "ValueError: No available memory for the cache blocks"),
    "vLLM's engine, dead": (
        of("EngineCore pid=9", SEGFAULT)
        + DRIVER
        + "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above).\n",
        "native",
        "*** SIGSEGV received",
    ),
    "Ray's memory monitor": (
        DIED + MEMORY_PRESSURE,
        "worker",
        "2 Workers (tasks / actors) killed due to memory pressure",
    ),
    "Ray's memory error": (RAY_MEMORY, "traceback", "ray.exceptions.OutOfMemoryError: Task was killed due to the node"),
    "how much memory": (RAY_MEMORY, "traceback", "119.91GB / 125.28GB"),
    "the kernel": (
        DIED + "[99.1] Out of memory: Killed process 812 (ray::WorkerDict) total-vm:90kB\n",
        "worker",
        "Out of memory: Killed process 812",
    ),
    "Slurm's memory": (
        DIED
        + "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been OOM Killed.\n",
        "worker",
        "Detected 1 oom_kill event",
    ),
    "Slurm's time": (
        "step:3 - x\nslurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2025-11-24T12:00:00 DUE TO TIME LIMIT ***\n",
        "native",
        "DUE TO TIME LIMIT",
    ),
    "killed in a shell": ("step:3 - x\n" + SHELL.format("Killed"), "native", "line 44: 21834 Killed"),
    "segfault in a shell": (
        SHELL.format("Segmentation fault      (core dumped)"),
        "native",
        "21834 Segmentation fault",
    ),
    "bus error": ("step:3 - x\nBus error (core dumped)\n", "native", "Bus error (core dumped)"),
    "disk": (of("WorkerDict pid=812", DISK) + DIED, "traceback", "No space left on device"),
    "disk said by another": (
        DRIVER
        + "RuntimeError: PytorchStreamWriter failed writing file data/0: file write failed\n"
        + of("B pid=3", DISK),
        "traceback",
        "No space left on device",
    ),
    "Ray's disk": (RAY_DISK, "traceback", "ray.exceptions.OutOfDiskError: Local disk is full"),
    "device assertion": (of("A pid=1", ASSERTED) + DIED, "native", "Assertion `srcIndex < srcSelectDimSize` failed."),
    "torchrun": (of("A pid=1", CUDA_MEMORY) + DRIVER + CHILD_FAILED, "traceback", "torch.OutOfMemoryError"),
    "what was caught before": (CAUGHT + FINAL, "traceback", "ValueError: the training set is empty"),
    "an abort at the end": (
        FINAL + "terminate called without an active exception\nAborted (core dumped)\n",
        "traceback",
        "ValueError: the training set is empty",
    ),
    "hydra's group": (NOT_FOUND, "config", "Could not find 'method/egws'"),
    "hydra's merge": (
        "Error merging override +algorithm.egsw.alpha=1\nUnsupported value type\n    full_key: algorithm.egsw\n"
        + HYDRA_END,
        "config",
        "Error merging override +algorithm.egsw.alpha=1",
    ),
    "hydra's grammar": (
        "mismatched input '=' expecting <EOF>\nSee https://hydra.cc/docs/1.2/advanced/override_grammar/basic\n"
        + HYDRA_END,
        "config",
        "mismatched input '=' expecting <EOF>",
    ),
    # What was printed, and ended nothing.
    "caught, and steps followed": (
        CAUGHT_SCORE + STEPS + of("WorkerDict pid=812", CUDA_MEMORY) + DIED,
        "traceback",
        "torch.OutOfMemoryError",
    ),
    "caught, and no step": (CAUGHT_SCORE + of("WorkerDict pid=812", CUDA_MEMORY) + DIED, "traceback", "torch.OutOfMem"),
    "caught, and vLLM's engine died": (
        CAUGHT + VLLM.replace("ValueError: No available", "ValueError: No more") + ENGINE_DRIVER,
        "traceback",
        "ValueError: No more memory",
    ),
    "caught, and killed": (CAUGHT_SCORE + STEPS + SHELL.format("Killed"), "native", "line 44: 21834 Killed"),
    "caught, and killed at once": (CAUGHT_SCORE + SHELL.format("Killed"), "native", "line 44: 21834 Killed"),
    "caught, and nothing said": (CAUGHT_SCORE + STEPS + "bye\n", "tail", "bye"),
    "caught, and a silent death": (CAUGHT_SCORE + STEPS + RAYLET + DIED, "worker", "A worker died or was killed"),
    "caught, and a word of the shell": (
        CAUGHT_SCORE + "ERROR: data.train_files=/x does not exist\n",
        "traceback",
        "The log ends with: ERROR: data.train_files=/x does not exist",
    ),
    "caught, and a weak error": (
        CAUGHT_SCORE + FINAL.replace("ValueError: the training set is empty", "EOFError: Ran out of input"),
        "traceback",
        "EOFError: Ran out of input",
    ),
    "graded code that crashed": (
        of("RewardLoopWorker pid=6636", "double free or corruption (out)") + FINAL,
        "traceback",
        "ValueError: the training set is empty",
    ),
    "ignored in a destructor": (
        FINAL + "Exception ignored in: <function A.__del__ at 0x7f>\n" + RAISED.format("RuntimeError: engine closed"),
        "traceback",
        "ValueError: the training set is empty",
    ),
    "ignored at exit": (
        FINAL + "Error in atexit._run_exitfuncs:\n" + RAISED.format("OSError: [Errno 9] Bad file descriptor"),
        "traceback",
        "ValueError: the training set is empty",
    ),
    "an error of logging": (
        of("A pid=3", "--- Logging error ---\n" + RAISED.format("UnicodeEncodeError: 'ascii' codec") + LOGGED)
        + of("WorkerDict pid=812", CUDA_MEMORY)
        + DIED,
        "traceback",
        "torch.OutOfMemoryError",
    ),
    # What is no death.
    "a warning of libgomp": ("libgomp: Invalid value for environment variable OMP_NUM_THREADS: auto\n" + FINAL, *EMPTY),
    "Slurm's first line": (
        "slurmstepd: error: couldn't chdir to `/home/me/x': going to /tmp instead\n" + FINAL,
        *EMPTY,
    ),
    "a peer that is stopped": (of("B pid=3", "*** SIGTERM received at time=1764000000 on cpu 3 ***") + FINAL, *EMPTY),
    "a name in the settings": ("ray init kwargs: {'num_cpus': 2, 'oom_killer': 1}\n" + FINAL, *EMPTY),
    "a watchdog said first": (
        of("WorkerDict pid=813", UNHANDLED) + of("WorkerDict pid=812", CUDA_MEMORY) + DIED,
        "traceback",
        "torch.OutOfMemoryError",
    ),
    # Forms.
    "a rank's": ("".join(f"[rank0]: {line}\n" for line in RAISED.format("ValueError: x").splitlines()), *X),
    "a rank's, and torchrun": (
        "".join(f"[rank0]: {line}\n" for line in RAISED.format("ValueError: x").splitlines()) + DRIVER + TORCHRUN,
        *X,
    ),
    "torchrun's table": (DRIVER + TORCHRUN.replace("exitcode  : 1 ", "exitcode  : -9 "), "traceback", "exitcode  : -9"),
    "another node's raylet": (
        FINAL.replace("ValueError", "\x1b[33m(raylet, ip=192.0.2.3)\x1b[0m Spilled 4096 MiB\nValueError"),
        *EMPTY,
    ),
    "an actor with a name of its own": (of("RewardModel(index=1) pid=812", RAISED.format("ValueError: x")) + DIED, *X),
    "torn apart": (
        of("WorkerDict pid=812", RAISED.format("GPU memory allocated (GB): 3.1\nValueError: x")) + DIED,
        *X,
    ),
    "torn apart by a warning": (
        of("WorkerDict pid=812", RAISED.format("WARNING: All log messages before absl\nValueError: x")) + DIED,
        *X,
    ),
    "frames that Ray left out": (
        of("WorkerDict pid=812", "torch.OutOfMemoryError: CUDA out of memory.") + DIED,
        *MEMORY,
    ),
    "a small letter": (RAISED.format("socket.gaierror: [Errno -2] Name or service not known"), "traceback", "gaierror"),
    "a class in a function": (RAISED.format("a.b.<locals>.Bad: no key"), "traceback", "a.b.<locals>.Bad: no key"),
    "a group": (
        RAISED.format("").replace("\n", "\n  | ") + "ExceptionGroup: two (1 sub-exception)\n"
        "  +-+---------------- 1 ----------------\n"
        + "".join(f"    | {line}\n" for line in RAISED.format("ValueError: x").splitlines()),
        *X,
    ),
    "text behind an empty line": (RAISED.format("ValueError: \n\nthe reason"), "traceback", "the reason"),
    "Triton's code": (
        RAISED.format("triton.CompilationError: at 22:17:\n" + "    x = 1\n" * 8 + "cannot add pointer and float"),
        "traceback",
        "cannot add pointer and float",
    ),
    "a chain of three": (
        RAISED.format("KeyError: 3")
        + AND
        + RAISED.format("ValueError: misses 'answer'")
        + AND
        + RAISED.format("RuntimeError: failed"),
        "traceback",
        "raised from ValueError: misses 'answer'",
    ),
    "the compiler's word": (
        of(
            "A pid=1",
            "/tmp/x/main.c:5:10: fatal error: Python.h: No such file or directory\ncompilation terminated.\n"
            + RAISED.format(
                "subprocess.CalledProcessError: Command '['/usr/bin/gcc']' returned non-zero exit status 1."
            ),
        )
        + FINAL.replace(
            "ValueError: the training set is empty",
            "subprocess.CalledProcessError: Command '['/usr/bin/gcc']' returned non-zero exit status 1.",
        ),
        "traceback",
        "Python.h: No such file",
    ),
    "a port in use": (
        of("S pid=900", "ERROR:    [Errno 98] error while attempting to bind: address already in use")
        + DIED.replace("\tpid: 812\n", ""),
        "traceback",
        "address already in use",
    ),
    "Ray's own": (
        "[2025-11-29 10:00:00,123 C 7945 68] rpc_client.h:203: Failed to connect to GCS within 60 seconds.\n",
        "native",
        "Failed to connect to GCS",
    ),
    "Rust": (
        of("A pid=1", "thread 'worker' panicked at src/lib.rs:12:5:\nindex out of bounds: the len is 3") + DIED,
        "native",
        "index out of bounds: the len is 3",
    ),
    "hydra's primary configuration": (
        "Cannot find primary config 'nothere'. Check that it's in your config search path.\n\nConfig search path:\n"
        "\tprovider=hydra, path=pkg://hydra.conf\n" + HYDRA_END,
        "config",
        "Cannot find primary config 'nothere'",
    ),
    "what a worker prints later": (
        of("WorkerDict pid=812", RAISED.format("ValueError: x"))
        + "other\n"
        + of("WorkerDict pid=812", "Saving thread ended after shutdown")
        + DIED,
        *X,
    ),
    "shared memory": (
        CAUGHT_SCORE
        + FINAL.replace(
            "ValueError: the training set is empty",
            "RuntimeError: DataLoader worker (pid 123) is killed by signal: Bus error. It is possible that its workers "
            "are out of shared memory. Please try to raise your shared memory limit.",
        ),
        "traceback",
        "out of shared memory",
    ),
    "a hang that its launcher kills": (HANG, "native", "ended: for STALL_LIMIT=7200 seconds nothing was added to"),
    "why it hung": (
        of("WorkerDict pid=812", RAISED.format("ValueError: x")) + HANG,
        "native",
        "ValueError: x",
    ),
    "no module": ("/v/bin/python: No module named verl.trainer.main_pp0\n", "tail", "No module named verl.trainer"),
}


# Whose words are not among the first two lines.
FURTHER_DOWN = ("how much memory", "torchrun's table", "a port in use", "Triton's code", "text behind an empty line")


@pytest.mark.parametrize("name", LOGS)
def test_the_sentence_that_says_why(name):
    log, kind, words = LOGS[name]
    cause = find_cause(log, limit=12)
    shown = cause.lines if kind == "tail" else cause.lines[:6]
    assert (cause.kind, words in "\n".join(shown)) == (kind, True), cause
    if kind in ("traceback", "worker") and name not in FURTHER_DOWN:
        assert words in "\n".join(cause.lines[:2]), cause


@pytest.mark.parametrize("name", LOGS)
def test_a_log_cut_anywhere_never_fails(name):
    log = LOGS[name][0]
    for end in range(0, len(log), 61):
        assert len(find_cause(log[:end]).lines) <= 15
        assert len(find_cause(log[end:], limit=4).lines) <= 4
