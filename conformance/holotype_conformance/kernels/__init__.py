"""The service for attention kernels: is a function ``attention(q, k, v, …)`` right?

`candidate` says what such a function is given, `oracle` what it must return, `subject` calls it under guard, and
`properties` hold it to its promises.
"""
