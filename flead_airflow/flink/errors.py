"""What can go wrong between Airflow and Flink."""


class FlinkRestError(RuntimeError):
    """Flink refused a request.

    Attributes
    ----------
    status_code : int
        HTTP status of the answer.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


class FlinkStateError(RuntimeError):
    """The state that a job left cannot be found, for want of a setting or a folder."""


class FlinkUnreachableError(FlinkRestError):
    """What answered is not Flink but a proxy before it, which does not reach it."""


class FlinkJobNotFoundError(FlinkRestError):
    """The JobManager does not know the job: it never ran, or the JobManager was restarted."""


class FlinkBusyError(FlinkRestError):
    """The JobManager runs the script of another submission, and can run one at a time."""


class FlinkSubmissionError(FlinkRestError):
    """The job's script failed or Flink refused what it submitted; the traceback is the message."""


class FlinkDuplicateJobError(FlinkSubmissionError):
    """A job of that id was submitted before, whatever became of it."""
