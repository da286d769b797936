"""What is optimised: pure functions of packed completion tokens, which never see padding."""
