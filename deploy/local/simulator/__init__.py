"""FOR DEVELOPMENT AND TESTS ONLY: stands where Amazon SES, SendGrid and Mailgun stand, and sends no mail to
anybody.

It takes the calls that Mailroom makes, keeps what it was given, notifies as SES does through the SNS topic of the
configuration set at the AWS emulator and as the others do by webhooks, and misbehaves on request. Its log of
acceptances is the judge of tests: one fsynced line for each mail that it took, never deduplicated.
"""
