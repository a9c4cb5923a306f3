// Package job is what the kernels test and its virtual machine agree on: a list
// of jobs in a file of the machine, and marks on its console before and after each.
//
// It must never say what a job's output means: the test does.
package job

// File of the machine that holds the jobs: a JSON array of Job.
const File = "/jobs.json"

// Prefix of the lines that are marks; what follows is a Mark in JSON.
const Prefix = "job> "

// Job is one program to run.
type Job struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
}

// Mark says that a job has begun or ended, or that the machine could not start.
type Mark struct {
	Job     string  `json:"job"`
	Ended   bool    `json:"ended,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Error   string  `json:"error,omitempty"`
}
